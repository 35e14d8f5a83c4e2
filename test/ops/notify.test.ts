import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { notify } from '../../src/ops/notify.js';
import { DatagramSender, loadDatagramAddon, sendDatagram } from '../../src/ops/datagram.js';
import { closeFd } from '../../src/os/fd.js';
import { bindDatagram, receive } from '../../src/os/socket.js';

/** A service manager's end: what it is told, one message a call. */
function listen(t: Test, path: string): { next(): string; close(): void } {
  const fd = bindDatagram(path);
  let open = true;
  const close = (): void => {
    if (open) closeFd(fd);
    open = false;
  };
  t.teardown(close);
  const buffer = Buffer.alloc(4096);
  return {
    next: () => buffer.toString('utf8', 0, Math.max(0, receive(fd, buffer, 0, buffer.length, []))),
    close,
  };
}

void t.test('a service manager is told', (t) => {
  const path = join(t.testdir(), 'notify');
  const manager = listen(t, path);
  t.ok(notify({ READY: 1, STATUS: 'serving\n2 VMs' }, path));
  t.equal(manager.next(), 'READY=1\nSTATUS=serving 2 VMs\n');
  t.end();
});

void t.test('one with an abstract name, as some containers have it, too', (t) => {
  const name = `@balloond-test-${process.pid}`;
  const manager = listen(t, name);
  t.ok(notify({ READY: 1 }, name));
  t.equal(manager.next(), 'READY=1\n');
  t.end();
});

void t.test('unix-dgram was built for this Node', (t) => {
  t.not(loadDatagramAddon(), null);
  t.end();
});

for (const [way, addon] of [
  ['unix-dgram', loadDatagramAddon()],
  ['the native helper', null],
] as const) {
  void t.test(`by ${way}, a receiver started again is found, a full one not waited for`, (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'balloond-notify-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'receiver');
    const first = listen(t, path);
    const sender = new DatagramSender(path, addon);
    t.teardown(() => sender.close());
    t.equal(sender.send(Buffer.from('one')), 0);
    t.equal(first.next(), 'one');
    first.close();
    t.not(sender.send(Buffer.from('nobody')), 0);
    rmSync(path);
    const second = listen(t, path);
    t.equal(sender.send(Buffer.from('two')), 0);
    t.equal(second.next(), 'two');
    let sent = 0;
    while (sent < 100_000 && sender.send(Buffer.from('more')) === 0) sent++;
    t.ok(sent < 100_000, `full after ${sent}`);
    t.end();
  });

  void t.test(`by ${way}, what cannot be reached is no failure`, (t) => {
    const folder = t.testdir();
    t.equal(sendDatagram(join(folder, 'nobody'), 'x', addon), false);
    t.equal(sendDatagram(`/${'x'.repeat(107)}`, 'x', addon), false);
    t.equal(sendDatagram('@nobody-listens-here', 'x', addon), false);
    const name = `@balloond-test-${process.pid}`;
    const manager = listen(t, name);
    t.ok(sendDatagram(name, 'by its abstract name', addon));
    t.equal(manager.next(), 'by its abstract name');
    t.end();
  });
}

void t.test('no manager, or one that cannot be reached, is no failure', (t) => {
  t.equal(notify({ READY: 1 }, undefined), false);
  t.equal(notify({ READY: 1 }, join(t.testdir(), 'nobody')), false);
  t.end();
});
