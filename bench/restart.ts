import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ControlClient, UnreachableError } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { Guest } from '../test/support/lab/guest.js';
import { median, percentile, report, type Row } from './table.js';

/**
 * A real Linux guest whose balloon moves all the time, while the daemon behind it is ended again and again: how long
 * until it is served again, and how long a program in the guest waits at most. Its pages are checked all along.
 */
const { values } = parseArgs({ options: { kills: { type: 'string', default: '200' } } });
const KILLS = Number(values.kills);
const WITHIN_MS = 700;
const TARGETS = [224, 32].map((mib) => mib * 2 ** 20);
const HELD_MIB = 96;
const STOPPED_MS = 3000;

const daemon = await DaemonProcess.start({ supervise: true });
const control = new ControlClient(daemon.controlPath);
const guest = await Guest.boot({ name: 'guest', memoryMib: 512, sockets: [{ path: daemon.socketPath }] });
try {
  await guest.waitReady();
  await guest.hold(HELD_MIB, 1);
  const rows: Row[] = [];
  rows.push(await phase('nothing ends', 0, () => pause(20_000)));
  rows.push(await phase('SIGKILL', KILLS, () => daemon.crash('SIGKILL')));
  rows.push(await phase('SIGTERM', 20, () => daemon.crash('SIGTERM')));
  rows.push(
    await phase(`SIGSTOP for ${STOPPED_MS / 1000} s`, 3, async () => {
      process.kill(daemon.pid, 'SIGSTOP');
      await pause(STOPPED_MS);
      process.kill(daemon.pid, 'SIGCONT');
    }),
  );
  report('restart', rows);
  const target = TARGETS[0] ?? 0;
  await control.setTarget('guest', { balloonBytes: target });
  await daemon.until('guest', ({ balloon }) => balloon.actualBytes === target, 'the last target is reached');
  const lost = await guest.verify();
  await daemon.crash();
  await guest.systemReset();
  await daemon.until('guest', ({ state }) => state === 'running', 'the guest reboots');
  console.log(`\nPages lost: ${lost}. The last target was reached, and the guest rebooted.`);
} finally {
  await guest.kill();
  await daemon.stop();
}

/** The daemon ends `count` times at random moments of what goes on all the time. */
async function phase(name: string, count: number, end: () => Promise<void>): Promise<Row> {
  const over = new AbortController();
  const restartsBefore = restarts().length;
  const moving = move(over.signal);
  const answering = answer(over.signal);
  for (let n = 0; n < Math.max(1, count); n++) {
    if (count > 0) await pause(Math.random() * WITHIN_MS);
    await end();
  }
  over.abort();
  const stalls = await answering;
  const took = restarts().slice(restartsBefore);
  const ms = (value: number): string => (Number.isNaN(value) ? '-' : value.toFixed(0));
  return {
    'the daemon ends by': name,
    times: count,
    'served again ms p50': ms(median(took)),
    p99: ms(percentile(took, 99)),
    max: ms(percentile(took, 100)),
    'a program in the guest waits ms p50': ms(median(stalls)),
    'p99 ': ms(percentile(stalls, 99)),
    'max ': ms(Math.max(...stalls)),
    'target moves': await moving,
  };
}

/** Milliseconds from each end to the next daemon, by the keeper's and the daemons' own clock. */
function restarts(): number[] {
  const times = [...daemon.log.matchAll(/"time":"([^"]+)","event":"(daemon-ended|daemon-started)"/g)];
  return times.flatMap(([, time = '', event], n) => {
    const before = times[n - 1];
    return event === 'daemon-started' && before?.[2] === 'daemon-ended'
      ? [Date.parse(time) - Date.parse(before[1] ?? '')]
      : [];
  });
}

async function move(over: AbortSignal): Promise<number> {
  let moves = 0;
  while (!over.aborted) {
    try {
      await control.setTarget('guest', { balloonBytes: TARGETS[moves % TARGETS.length] ?? 0 });
      moves++;
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
    }
    await pause(150);
  }
  return moves;
}

/** How long the guest takes for next to nothing, over and over. */
async function answer(over: AbortSignal): Promise<number[]> {
  const took: number[] = [];
  while (!over.aborted) {
    const start = performance.now();
    const { code } = await guest.sh(':');
    if (code !== 0) throw new Error('the guest cannot run a program');
    took.push(performance.now() - start);
  }
  return took;
}
