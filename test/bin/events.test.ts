// Events over the end of a daemon: what is remembered, and what a client that follows sees of it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { sinceOf } from '../../src/control/cli/events.js';
import { ControlClient } from '../../src/control/client.js';
import { BIN, DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { Frontend } from '../support/frontend.js';
import { ANY_VMM } from '../support/vmm-orders.js';

const VM = `pid-${process.pid}`;
const QUIET_MS = 1000;

interface Follower {
  events(): DaemonEvent[];
  said(): string[];
}

/** `balloonctl events --follow --json` until the test ends. */
function follow(t: Test, daemon: DaemonProcess, ...args: string[]): Follower {
  const child = spawn(
    process.execPath,
    [join(BIN, 'balloonctl.js'), '--control', daemon.controlPath, 'events', '--follow', '--json', ...args],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  t.teardown(async () => {
    child.kill();
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  const lines = (text: string): string[] => text.split('\n').slice(0, -1);
  return {
    events: () => lines(output.stdout).map((line) => JSON.parse(line) as DaemonEvent),
    said: () => lines(output.stderr),
  };
}

async function until(t: Test, condition: () => boolean, what: string): Promise<void> {
  await eventually(condition, () => what);
  t.pass(what);
}

const starts = (events: readonly DaemonEvent[]): number =>
  events.filter(({ event }) => event === 'daemon-started').length;

/** They are each number once, in order, of one epoch. */
function assertWhole(t: Test, events: readonly DaemonEvent[]): void {
  const first = events[0]?.seq ?? 0;
  t.same(
    events.map(({ seq }) => seq),
    events.map((_, n) => first + n),
    'none twice, none left out',
  );
  t.equal(new Set(events.map(({ epoch }) => epoch)).size, 1, 'one epoch');
}

void t.test('under a keeper, events go on', async (t) => {
  // The policy has something to say of the VM at a moment of its own.
  const config = '[[socket]]\npath = "{folder}/vhost.sock"\n[policy]\nmode = "off"\n';
  const daemon = await DaemonProcess.start({ config, supervise: true });
  t.teardown(() => daemon.stop());
  const frontend = new Frontend({ socket: daemon.socketPath, order: ANY_VMM });
  await frontend.connect();
  t.teardown(() => frontend.close());
  const follower = follow(t, daemon);
  // It may come late.
  const warnings = follow(t, daemon, '--level', 'warn', '--since', '1d');
  await until(t, () => starts(follower.events()) === 1, 'it follows');
  const before = await daemon.events();

  for (let kill = 1; kill <= 3; kill++) {
    await daemon.crash();
    await until(t, () => starts(follower.events()) === 1 + kill, `it goes on after ${kill} kills`);
  }
  const client = new ControlClient(daemon.controlPath);
  await client.inhibit(VM, 'a backup');
  await until(t, () => follower.events().some(({ event }) => event === 'inhibited'), 'and is not deaf');
  // The daemon looks for the cgroup of the VM beside, and may have something to say of it.
  let seen = follower.events();
  for (let before = 0; before < seen.length; seen = follower.events()) {
    before = seen.length;
    await sleep(QUIET_MS);
  }
  assertWhole(t, seen);
  t.same(seen, await daemon.events(), 'what it saw is what the daemon remembers');
  t.same(seen.slice(0, before.length), before, 'also what was before the first kill');
  t.equal(follower.said().length, 3);
  // A daemon that takes its time is waited for.
  const away =
    /^balloonctl: (the daemon was away for [\d.]+ s: events go on$|waiting for the daemon: control socket )/;
  for (const line of follower.said()) t.match(line, away);
  await until(t, () => warnings.events().length > 0, 'who wants warnings gets this one');
  t.match(warnings.events(), [{ event: 'inhibited', vm: VM, message: /a backup/ }]);
  t.equal(warnings.events().length, 1);
  t.match(daemon.log, `"message":"${VM}: discarding stopped`, 'the log says of which VM');

  const last = seen.at(-1)?.id ?? '';
  const since = async (...args: string[]): Promise<DaemonEvent[]> =>
    (await daemon.ok('events', '--json', ...args))
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as DaemonEvent);
  t.same(await since('--since', last), []);
  t.same(await since('--since', seen.at(-2)?.id ?? ''), seen.slice(-1));
  t.same(await since('--since', '1d'), seen);
  t.same(
    await since('--since', '1d', '--vm', VM),
    seen.filter(({ vm }) => vm === VM),
  );
  t.same(await since('--since', '2999-01-01T00:00'), []);
  const other = await daemon.ctl('events', '--since', '00000000-5', '--json');
  t.equal(other.stdout.split('\n').length - 1, seen.length, 'all');
  t.match(other.stderr, /^balloonctl: note: event 00000000-5 is of another epoch: .* all events/);
  t.match(await daemon.ctl('events', '--vm', 'nobody'), {
    code: 1,
    stdout: '',
    stderr: /no VM is called "nobody": choose one of pid-/,
  });
  for (const wrong of ['30', '1w', 'yesterday', '2026-13-01T00:00', 'abcdef01']) {
    t.match(
      await daemon.ctl('events', '--since', wrong),
      { code: 2, stderr: /--since: write a duration/ },
      wrong,
    );
  }
});

void t.test('a daemon that nobody keeps begins a new epoch, and it is said', async (t) => {
  const first = await DaemonProcess.start();
  const follower = follow(t, first);
  await until(t, () => starts(follower.events()) === 1, 'it follows');
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  await until(t, () => follower.said().length === 1, 'that the daemon is away');
  t.match(
    follower.said()[0],
    /^balloonctl: waiting for the daemon: control socket .* systemctl start balloond/,
  );
  const second = await DaemonProcess.start({ folder: first.folder });
  t.teardown(() => second.stop());
  await until(t, () => starts(follower.events()) === 2, 'it goes on');
  const [one, two] = [follower.events()[0]?.epoch, follower.events().at(-1)?.epoch];
  t.not(one, two);
  t.same(
    follower.events().filter(({ epoch }) => epoch === two),
    await second.events(),
    'all of it',
  );
  t.match(follower.said()[1], /^balloonctl: note: event .* is of another epoch/);
  t.equal(follower.said().length, 2);
});

void t.test('what --since may be', (t) => {
  const now = new Date('2026-11-27T10:00:00Z');
  t.equal(sinceOf('30m', now), '2026-11-27T09:30:00.000Z');
  t.equal(sinceOf('90s', now), '2026-11-27T09:58:30.000Z');
  t.equal(sinceOf('2d', now), '2026-11-25T10:00:00.000Z');
  t.equal(sinceOf('2026-11-27T10:00Z', now), '2026-11-27T10:00:00.000Z');
  t.equal(sinceOf('2026-11-27T10:00:01+01:00', now), '2026-11-27T09:00:01.000Z');
  t.equal(
    sinceOf('2026-11-27 10:00', now),
    new Date(2026, 10, 27, 10).toISOString(),
    'the clock of this machine',
  );
  t.equal(sinceOf('0123abcd-7', now), '0123abcd-7');
  t.end();
});
