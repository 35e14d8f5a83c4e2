/**
 * The second and the third run of programs on a host with room: what a guest without a balloon takes for them, one whose
 * traditional balloon follows its working set, and one with a page cache balloon, by the policy and with no limit. Guests work
 * in turns, so that each rests while the others work.
 */
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import {
  bothLimits,
  buildCacheModule,
  CACHE_SOCKETS,
  loadCacheModule,
} from '../test/support/lab/cache-module.js';
import type { Guest } from '../test/support/lab/guest.js';
import { readMib } from './host-samples.js';
import { cpuSeconds } from './process-cost.js';
import { median, report, spread } from './table.js';
import { bootWorker, work, WORKER_MIB, WORKLOADS } from './worker.js';

const MIB = 2 ** 20;
/** Runs one after the other, the first with an empty page cache. */
const RUNS = ['cold', 'second', 'third'] as const;
/** Contenders by the names of their VMs; the first is what the others are compared with. */
const CONTENDERS = {
  plain: 'no balloon',
  sized: 'traditional, sized by the host',
  cached: 'page cache, by the policy',
  unlimited: 'page cache, no limit',
  two: 'page cache, no limit, two devices',
} as const;
type Name = keyof typeof CONTENDERS;
const NAMES = Object.keys(CONTENDERS) as Name[];
const CONFIG = `${CACHE_SOCKETS}
[policy]
mode = "auto"
reserve = "64M"

[[policy.band]]
name = "all"
min = "5%"

[[vm]]
match = "sized"
size = "working-set"
`;

interface Run {
  readonly workload: string;
  readonly name: Name;
  readonly round: number;
  readonly run: number;
  readonly seconds: number;
  /** Of QEMU: other work on the machine changes it less than the time. */
  readonly cpuSeconds: number;
  /** Of the disk. */
  readonly readMib: number;
  readonly hostMib: number;
}

const { only, rounds } = parseArgs({
  options: { only: { type: 'string' }, rounds: { type: 'string', default: '3' } },
}).values;
const module = await buildCacheModule();
if (module === null) throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
const daemon = await DaemonProcess.start({ config: CONFIG });
const guests = new Map<Name, Guest>();
const runs: Run[] = [];
try {
  for (const name of NAMES) guests.set(name, await boot(name, module));
  const workloads = Object.entries(WORKLOADS).filter(([name]) => only === undefined || name === only);
  for (const [workload, command] of workloads) {
    // What the host has never given is slower: all have had it once.
    const outputs: string[] = [];
    for (const guest of guests.values()) outputs.push((await work(guest, command, outputs[0])).output);
    for (let round = 0; round < Number(rounds); round++) {
      const order = round % 2 === 0 ? NAMES : NAMES.toReversed();
      for (const guest of guests.values()) await guest.sh('sync; echo 3 >/proc/sys/vm/drop_caches');
      for (const run of RUNS.keys()) {
        for (const name of order)
          runs.push(await once({ workload, name, round, run }, command, outputs[0] ?? ''));
      }
    }
    report(
      `second-run-${workload}`,
      NAMES.map((name) => row(workload, name)),
      runs.filter((run) => run.workload === workload),
    );
  }
} finally {
  for (const guest of guests.values()) await guest.kill();
  await daemon.stop();
}

async function boot(name: Name, module: string): Promise<Guest> {
  const sockets = name === 'plain' ? [] : bothLimits(daemon.folder, name === 'two' ? 2 : 1);
  const guest = await bootWorker({ name, sockets });
  if (name === 'plain' || name === 'sized') return guest;
  await loadCacheModule(guest, module);
  await daemon.until(name, ({ cache }) => cache !== null, 'its page cache balloon runs');
  if (name !== 'cached') await daemon.ok('set', name, '--cache-limit', `${WORKER_MIB}M`);
  return guest;
}

async function once(
  which: Pick<Run, 'workload' | 'name' | 'round' | 'run'>,
  command: string,
  expected: string,
): Promise<Run> {
  const guest = guests.get(which.name);
  if (guest === undefined) throw new Error(`no guest ${which.name}`);
  const before = { mib: await readMib(guest), cpu: cpuSeconds(guest.pid) };
  const { seconds } = await work(guest, command, expected);
  const done = {
    ...which,
    seconds,
    cpuSeconds: cpuSeconds(guest.pid) - before.cpu,
    readMib: (await readMib(guest)) - before.mib,
    hostMib: guest.memfdAllocatedBytes() / MIB,
  };
  process.stderr.write(`${JSON.stringify(done)}\n`);
  return done;
}

function row(workload: string, name: Name): Record<string, string> {
  const of = (who: Name, run: number): Run[] =>
    runs.filter((one) => one.workload === workload && one.name === who && one.run === run);
  const seconds = (who: Name, run: number): number[] => of(who, run).map((one) => one.seconds);
  const each = (figure: (run: number) => string): string => RUNS.map((_, run) => figure(run)).join(', ');
  return {
    workload,
    balloon: CONTENDERS[name],
    ...Object.fromEntries(RUNS.map((words, run) => [`${words} s`, spread(seconds(name, run))])),
    'of no balloon': each((run) => (median(seconds(name, run)) / median(seconds('plain', run))).toFixed(2)),
    'CPU s of QEMU': each((run) => median(of(name, run).map((one) => one.cpuSeconds)).toFixed(1)),
    'read MiB': each((run) => median(of(name, run).map((one) => one.readMib)).toFixed(0)),
    'host MiB after': median(of(name, RUNS.length - 1).map((one) => one.hostMib)).toFixed(0),
  };
}
