/**
 * What the page cache balloon costs the guest: seconds of a workload with a cold and with a warm page cache, without a
 * balloon, with limits that leave it so much of its working set, and with none but the guest's memory. Two guests take
 * turns, one of which has no balloon; a result that differs from the first ends the benchmark.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import { buildCacheModule, loadCacheModule } from '../test/support/lab/cache-module.js';
import type { Guest } from '../test/support/lab/guest.js';
import { median, report, spread } from './table.js';
import { bootWorker, inTree, work, WORKER_MIB as MEMORY_MIB, WORKLOADS } from './worker.js';

const MIB = 2 ** 20;
const ROUNDS = 3;
const IN_A_ROW = 3;
const TIMEOUT_MS = 200_000;
const LOOK_MS = 500;
/** The balloon rests when it did not change in so many looks; it stands still for a second at a time. */
const RESTING_LOOKS = 5;

/** What the limit leaves above what the balloon leaves to a guest at rest, in working sets; null: no balloon. */
const LEAVES = [null, 1.5, 1.25, 1, 0] as const;

interface Run {
  readonly leaves: (typeof LEAVES)[number];
  readonly limitMib: number;
  /** Of runs one after the other, the first with an empty page cache. */
  readonly seconds: readonly number[];
  /** Of the balloon, by the guest's reclaim, in each of them. */
  readonly takenMib: readonly number[];
  /** File pages read again that reclaim had taken. */
  readonly refaultedMib: number;
  readonly hostMib: number;
}

const { only } = parseArgs({ options: { only: { type: 'string' } } }).values;
const module = await buildCacheModule();
if (module === null) throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
for (const [workload, command] of Object.entries(WORKLOADS)) {
  if (only !== undefined && workload !== only) continue;
  const { workingSetMib, floorMib, runs } = await measure(workload, command, module);
  report(
    `cache-cost-${workload}`,
    LEAVES.map((leaves) => {
      const those = runs.filter((run) => run.leaves === leaves);
      const middle = (figure: (run: Run) => number): string => median(those.map(figure)).toFixed(0);
      return {
        workload,
        'working set MiB': workingSetMib.toFixed(0),
        'limit leaves': leaves === null ? 'no balloon' : leaves === 0 ? 'no limit' : `${leaves} x`,
        'limit MiB': leaves === null ? '-' : middle(({ limitMib }) => limitMib),
        ...Object.fromEntries(
          ['cold s', 'warm s', 'once more s'].map((name, n) => [
            name,
            spread(those.map(({ seconds }) => seconds[n] ?? NaN)),
          ]),
        ),
        'host MiB after': middle(({ hostMib }) => hostMib),
        'taken from it MiB': Array.from({ length: IN_A_ROW }, (_, n) =>
          middle(({ takenMib }) => takenMib[n] ?? NaN),
        ).join(' + '),
        'read again MiB': middle(({ refaultedMib }) => refaultedMib),
      };
    }),
    { workingSetMib, floorMib, runs },
  );
}

async function measure(
  workload: string,
  command: string,
  module: string,
): Promise<{ workingSetMib: number; floorMib: number; runs: Run[] }> {
  const daemon = await DaemonProcess.start();
  const guests: Guest[] = [];
  try {
    const plain = await bootWorker({ name: 'plain' });
    guests.push(plain);
    const ballooned = await bootWorker({
      name: 'ballooned',
      sockets: [{ path: daemon.socketPath }],
    });
    guests.push(ballooned);
    const workingSetMib = await usedMib(plain, command);
    const { output: expected } = await work(plain, command);
    // What the host has never given is slower: both have had it once.
    await work(ballooned, command, expected);
    await loadCacheModule(ballooned, module);
    await setLimit(daemon, ballooned, MEMORY_MIB);
    const restingMib = await dropCaches(daemon, ballooned);
    const runs: Run[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      for (const leaves of round % 2 === 0 ? LEAVES : LEAVES.toReversed()) {
        const guest = leaves === null ? plain : ballooned;
        const limitMib =
          leaves === null ? 0 : leaves === 0 ? MEMORY_MIB : Math.floor(restingMib - leaves * workingSetMib);
        if (leaves !== null) await setLimit(daemon, guest, limitMib);
        await dropCaches(daemon, guest);
        const refaultedBefore = await refaultedMib(guest);
        const seconds: number[] = [];
        const taken: number[] = [];
        for (let n = 0; n < IN_A_ROW; n++) {
          const before = await takenMib(daemon, guest);
          seconds.push((await work(guest, command, expected)).seconds);
          taken.push((await takenMib(daemon, guest)) - before);
        }
        const hostMib = guest.memfdAllocatedBytes() / MIB;
        const refaulted = (await refaultedMib(guest)) - refaultedBefore;
        runs.push({ leaves, limitMib, seconds, takenMib: taken, refaultedMib: refaulted, hostMib });
        process.stderr.write(`${workload} ${round + 1} of ${ROUNDS}: ${JSON.stringify(runs.at(-1))}\n`);
      }
    }
    return { workingSetMib, floorMib: MEMORY_MIB - restingMib, runs };
  } finally {
    for (const guest of guests) await guest.kill();
    await daemon.stop();
  }
}

/** The most memory that was in use at a time in a first run, above what was before; looked at every 0.2 s. */
async function usedMib(guest: Guest, command: string): Promise<number> {
  const look = 'sed -n "s/^MemFree: *\\([0-9]*\\) kB/\\1/p" /proc/meminfo';
  const { code, output } = await guest.sh(
    `echo 3 >/proc/sys/vm/drop_caches; ${look}
    ${inTree(command)} >/dev/null & while kill -0 $!; do ${look}; sleep 0.2; done 2>/dev/null; wait $!`,
    TIMEOUT_MS,
  );
  if (code !== 0) throw new Error(`${guest.name}: ${output}${guest.consoleLog}`);
  const [before = 0, ...then] = output.trim().split('\n').map(Number);
  return (before - Math.min(...then)) / 1024;
}

async function setLimit(daemon: DaemonProcess, guest: Guest, limitMib: number): Promise<void> {
  await daemon.ok('set', guest.name, '--cache-limit', `${limitMib}M`);
}

/** Resolves with what the balloon has then, when it rests. */
async function dropCaches(daemon: DaemonProcess, guest: Guest): Promise<number> {
  await guest.sh('sync; echo 3 >/proc/sys/vm/drop_caches');
  for (const seen: number[] = []; ; await pause(LOOK_MS)) {
    seen.push((await cacheOf(daemon, guest))?.actualBytes ?? 0);
    if (seen.length >= RESTING_LOOKS && new Set(seen.slice(-RESTING_LOOKS)).size === 1)
      return (seen.at(-1) ?? 0) / MIB;
  }
}

async function takenMib(daemon: DaemonProcess, guest: Guest): Promise<number> {
  return ((await cacheOf(daemon, guest))?.deflatedBytesTotal ?? 0) / MIB;
}

async function refaultedMib(guest: Guest): Promise<number> {
  const { output } = await guest.sh('sed -n "s/^workingset_refault_file //p" /proc/vmstat');
  return (Number(output) * 4096) / MIB;
}

async function cacheOf(daemon: DaemonProcess, guest: Guest) {
  return (await daemon.list()).find(({ name }) => name === guest.name)?.cache ?? null;
}
