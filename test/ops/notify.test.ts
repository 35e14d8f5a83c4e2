import { createRequire } from 'node:module';
import { join } from 'node:path';
import t from 'tap';
import { notify } from '../../src/ops/notify.js';
import { sendDatagram } from '../../src/ops/datagram.js';

interface Receiver {
  bind(path: string): void;
  close(): void;
}
const { createSocket } = createRequire(import.meta.url)('unix-dgram') as {
  createSocket: (type: 'unix_dgram', listener: (message: Buffer) => void) => Receiver;
};

void t.test('a service manager is told', async (t) => {
  const path = join(t.testdir(), 'notify');
  const received = new Promise<string>((resolve) => {
    const receiver = createSocket('unix_dgram', (message) => {
      receiver.close();
      resolve(message.toString());
    });
    receiver.bind(path);
  });
  t.ok(notify({ READY: 1, STATUS: 'serving\n2 VMs' }, path));
  t.equal(await received, 'READY=1\nSTATUS=serving 2 VMs\n');
});

void t.test('no manager, or one that cannot be reached, is no failure', (t) => {
  t.equal(notify({ READY: 1 }, undefined), false);
  t.equal(notify({ READY: 1 }, join(t.testdir(), 'nobody')), false);
  t.equal(sendDatagram('@abstract', 'x'), false);
  t.equal(sendDatagram(`/${'x'.repeat(107)}`, 'x'), false);
  t.end();
});
