// A real guest does not notice that the daemon behind its balloon is killed again and again, at any moment of
// inflating, deflating, reporting and statistics, nor that one of a newer build takes over half-way. KILLS=N kills it
// that often (and TAP_TIMEOUT=N takes that long).
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { UnreachableError } from '../../src/control/client.js';
import { ControlClient } from '../../src/control/client.js';
import { BIN } from '../support/daemon.js';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { buildNext, Installation } from '../support/next-build.js';
import type { Guest } from '../support/lab/guest.js';

const KILLS = Number(process.env['KILLS'] ?? 5);
const KILL_WITHIN_MS = 700;
const HELD_MIB = 96;
const LARGE_BYTES = 224 * MIB;
const SMALL_BYTES = 32 * MIB;

/** Moves the target to and fro until there is no more killing; returns how often. */
async function swing(control: ControlClient, over: AbortSignal): Promise<number> {
  let moves = 0;
  while (!over.aborted) {
    try {
      await control.setTarget('killed', { balloonBytes: moves % 2 === 0 ? LARGE_BYTES : SMALL_BYTES });
      if (moves % 5 === 0) await control.stats('killed', true);
      moves++;
    } catch (error) {
      // Nobody is there, or the guest was asked for statistics by a daemon that is no more.
      if (!(error instanceof Error)) throw error;
      if (!(error instanceof UnreachableError) && !error.message.includes('statistics')) throw error;
    }
    await sleep(150);
  }
  return moves;
}

/** What is held is read and written, and other memory taken and given back, which is reported as free. */
async function work(guest: Guest, over: AbortSignal): Promise<number> {
  let lost = 0;
  for (let seed = 1; !over.aborted; seed += 1000) {
    lost += await guest.renew(10, seed);
    await guest.sh('dd if=/dev/zero of=/tmp/x bs=1M count=24 2>/dev/null; rm -f /tmp/x');
  }
  return lost;
}

void t.test('killed at any moment', async (t) => {
  const installed = new Installation(t.testdir(), join(BIN, 'balloond.js'));
  const newer = await buildNext();
  const daemon = await startDaemon(t, { supervise: true, program: installed.program });
  const control = new ControlClient(daemon.controlPath);
  const guest = await boot(t, daemon, 'killed');
  await guest.hold(HELD_MIB, 1);
  const over = new AbortController();
  const swinging = swing(control, over.signal);
  const working = work(guest, over.signal);
  for (let kill = 0; kill < KILLS; kill++) {
    await sleep(Math.random() * KILL_WITHIN_MS);
    if (kill === Math.floor(KILLS / 2)) installed.install(newer);
    await daemon.crash();
  }
  over.abort();
  t.ok((await swinging) > 0, `the target moved ${await swinging} times`);
  t.equal(await working, 0, 'pages lost');

  // The last target that was asked for is reached, and a new one.
  await daemon.ok('set', 'killed', '--balloon', `${LARGE_BYTES}`, '--wait', '--timeout', '120');
  await daemon.crash();
  const { balloon, state } = await daemon.show('killed');
  t.match({ ...balloon, state }, { targetBytes: LARGE_BYTES, actualBytes: LARGE_BYTES, state: 'running' });
  t.ok(Number(balloon.discardedBytesTotal) >= LARGE_BYTES, 'what was counted is known');
  await daemon.ok('set', 'killed', '--balloon', '0', '--wait', '--timeout', '120');
  t.equal(await guest.verify(), 0, 'pages lost in the end');
  await guest.drop();

  // What ends QEMU when its backend was away in the meantime.
  await daemon.crash();
  await guest.systemReset();
  await daemon.until('killed', (view) => view.state === 'running', 'the driver runs after a reboot');
  await daemon.ok('set', 'killed', '--balloon', `${LARGE_BYTES}`, '--wait', '--timeout', '120');
  t.notMatch(daemon.log, /resume-failed|hand-over-failed|vm-dropped|frontend-error|driver-error/);
});
