/**
 * The memory that a job costs its host: Lua is built from its sources in a guest, source trees of twice the guest's memory are
 * read through, and gcc, grep and sqlite3 run one after the other, each in a guest that touched and freed its memory before, or read
 * files of that size (`--files`). Contenders have a guest
 * each, one after the other. GiB·min are counted from the beginning of the job: until its end, and until the guest was idle for some time after it.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import {
  bothLimits,
  buildCacheModule,
  CACHE_SOCKETS,
  loadCacheModule,
} from '../test/support/lab/cache-module.js';
import type { Guest } from '../test/support/lab/guest.js';
import { SIZED } from '../test/support/sized.js';
import { someOf } from './choice.js';
import { gibMinutes, readMib, type HostSample } from './host-samples.js';
import { cpuSeconds } from './process-cost.js';
import { median, report, spread, type Row } from './table.js';
import { bootWorker, work, WORKER_MIB, WORKLOADS } from './worker.js';

const MIB = 2 ** 20;
const LOOK_MS = 1000;
/** Touched and freed before the job: all but what the kernel has, and some for its page cache. */
const TOUCHED_MIB = WORKER_MIB - 192;
/** Or read from the disk in place of that, so that the page cache of these files has all memory. */
const READ_BEFORE = `dd if=/dev/nvme0n1 of=/dev/null bs=1M count=${WORKER_MIB} 2>&1`;
/** From then to the job. */
const REST_SECONDS = 30;
const TIMEOUT_MS = 3_600_000;
/** The lower limit of the guest that has both: half of its memory. */
const TARGET_MIB = WORKER_MIB / 2;
/** Contenders by the names of their VMs; times are compared with the first, and memory with the second. */
const CONTENDERS = {
  plain: 'no balloon',
  reporting: 'traditional, reporting',
  builtin: 'QEMU built-in, reporting',
  sized: 'traditional, sized by the host',
  cached: 'page cache, no limit',
  two: 'page cache, no limit, two devices',
  both: `page cache, no limit, and a target of ${TARGET_MIB} MiB`,
} as const;
type Name = keyof typeof CONTENDERS;
/** The disk that each job needs. */
const JOBS = { build: 'source-image', read: 'source-image', programs: 'work-image' } as const;
type Job = keyof typeof JOBS;
/** Of gcc and sqlite3, with grep once between: about 50 seconds in all, half of them gcc. */
const GCC_RUNS = 9;
const SQLITE_RUNS = 5;

interface Run {
  readonly job: Job;
  readonly name: Name;
  readonly round: number;
  /** Of the job. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly readMib: number;
  /** From the beginning of the job to the end of the idle time. */
  readonly samples: readonly HostSample[];
}

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    contender: { type: 'string' },
    files: { type: 'boolean', default: false },
    builds: { type: 'string', default: '1' },
    'idle-seconds': { type: 'string', default: '60' },
    rounds: { type: 'string', default: '1' },
  },
});
const idleSeconds = Number(values['idle-seconds']);
const names = someOf('--contender', Object.keys(CONTENDERS) as Name[], values.contender);
const jobs = someOf('--only', Object.keys(JOBS) as Job[], values.only);
const COMMANDS: Record<Job, string> = {
  build: `n=0; while [ $n -lt ${Number(values.builds)} ]; do n=$((n+1)); rm -rf /tmp/lua
    cp -r /work/lua /tmp/lua && make -s -C /tmp/lua linux 2>/tmp/log || { cat /tmp/log; exit 1; }; done
    md5sum /tmp/lua/src/luac; rm -rf /tmp/lua`,
  read: 'grep -rlF readahead_expand /work/read | sort',
  programs: `n=0; while [ $n -lt ${GCC_RUNS} ]; do n=$((n+1)); (${WORKLOADS.gcc}) || exit 1; done
    ${WORKLOADS.grep}
    n=0; while [ $n -lt ${SQLITE_RUNS} ]; do n=$((n+1)); ${WORKLOADS.sqlite3} || exit 1; done`,
};
const module = await buildCacheModule();
if (module === null) throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
for (const job of jobs) {
  const runs: Run[] = [];
  let expected: string | undefined;
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const { run, output } = await once(job, name, round, module, expected);
      expected = output;
      runs.push(run);
    }
  }
  report(
    `footprint-${job}${values.files ? '-files' : ''}`,
    names.map((name) => row(runs, name)),
    runs,
  );
}

async function once(
  job: Job,
  name: Name,
  round: number,
  module: string,
  expected: string | undefined,
): Promise<{ run: Run; output: string }> {
  const daemon = await DaemonProcess.start({ config: CACHE_SOCKETS + (name === 'sized' ? SIZED : '') });
  let guest: Guest | null = null;
  try {
    guest = await boot(name, JOBS[job], daemon, module);
    if (values.files) await guest.sh(READ_BEFORE);
    else if (!(await guest.eat(TOUCHED_MIB))) throw new Error(`${name} ran out of memory`);
    await pause(REST_SECONDS * 1000);
    const { samples, ...figures } = await measure(guest, job, expected);
    const { output, ...run } = { job, name, round, samples, ...figures };
    process.stderr.write(
      `${JSON.stringify({ ...run, samples: samples.map(({ mib }) => Math.round(mib)) })}\n`,
    );
    return { run, output };
  } finally {
    await guest?.kill();
    await daemon.stop();
  }
}

async function boot(
  name: Name,
  disk: (typeof JOBS)[Job],
  daemon: DaemonProcess,
  module: string,
): Promise<Guest> {
  const served = name !== 'plain' && name !== 'builtin';
  const guest = await bootWorker(
    {
      name,
      sockets: served ? bothLimits(daemon.folder, name === 'two' ? 2 : 1) : [],
      builtinBalloon: name === 'builtin',
    },
    disk,
  );
  if (name !== 'cached' && name !== 'two' && name !== 'both') return guest;
  await loadCacheModule(guest, module);
  await daemon.until(name, ({ cache }) => cache !== null, 'its page cache balloon runs');
  await daemon.ok('set', name, '--cache-limit', `${WORKER_MIB}M`);
  if (name === 'both') await daemon.ok('set', name, '--balloon', `${TARGET_MIB}M`, '--wait');
  return guest;
}

async function measure(
  guest: Guest,
  job: Job,
  expected: string | undefined,
): Promise<Pick<Run, 'seconds' | 'cpuSeconds' | 'readMib' | 'samples'> & { output: string }> {
  const before = { mib: await readMib(guest), cpu: cpuSeconds(guest.pid) };
  const samples: HostSample[] = [];
  const start = performance.now();
  const look = (): void => {
    const mib = guest.memfdAllocatedBytes() / MIB;
    samples.push({ seconds: (performance.now() - start) / 1000, mib });
  };
  look();
  const looks = setInterval(look, LOOK_MS);
  try {
    const { seconds, output } = await work(guest, COMMANDS[job], expected, TIMEOUT_MS);
    const cpu = cpuSeconds(guest.pid) - before.cpu;
    const read = (await readMib(guest)) - before.mib;
    await pause(idleSeconds * 1000);
    look();
    return { seconds, cpuSeconds: cpu, readMib: read, samples, output };
  } finally {
    clearInterval(looks);
  }
}

function row(runs: readonly Run[], name: Name): Row {
  const each = (who: Name, figure: (run: Run) => number): number[] =>
    runs.filter((run) => run.name === who).map(figure);
  const seconds = (run: Run): number => run.seconds;
  const untilEnd = (run: Run): number => gibMinutes(run.samples, run.seconds);
  const withIdle = (run: Run): number => gibMinutes(run.samples, run.seconds + idleSeconds);
  const of = (other: Name, figure: (run: Run) => number): string =>
    (median(each(name, figure)) / median(each(other, figure))).toFixed(2);
  return {
    balloon: CONTENDERS[name],
    s: spread(each(name, seconds), 1),
    'of no balloon': of('plain', seconds),
    'GiB·min until the end': spread(each(name, untilEnd), 3),
    'of reporting': of('reporting', untilEnd),
    [`with ${idleSeconds} s idle`]: spread(each(name, withIdle), 3),
    'with these, of reporting': of('reporting', withIdle),
    'host MiB before': median(each(name, ({ samples }) => samples[0]?.mib ?? NaN)).toFixed(0),
    most: median(each(name, ({ samples }) => Math.max(...samples.map(({ mib }) => mib)))).toFixed(0),
    after: median(each(name, ({ samples }) => samples.at(-1)?.mib ?? NaN)).toFixed(0),
    'CPU s of QEMU': median(each(name, (run) => run.cpuSeconds)).toFixed(1),
    'read MiB': median(each(name, (run) => run.readMib)).toFixed(0),
  };
}
