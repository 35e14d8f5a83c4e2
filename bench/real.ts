import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { BIN, DaemonProcess } from '../test/support/daemon.js';
import { ensureLab } from '../test/support/lab/lab.js';
import type { FrontendsPart, Kind } from './frontends.js';
import { Player } from './player.js';
import { contextSwitches, cpuSeconds } from './process-cost.js';
import { guestRows } from './real-guest.js';
import { countsSystemCalls, systemCallsDuring } from './system-calls.js';
import { median, percentile, report, type Row } from './table.js';
import { buildVcpu, type Step, type Told } from './vcpu.js';

/**
 * All that a Linux guest's balloon under QEMU asks for each MiB: GET_CONFIG, a kick and its ack, SET_CONFIG. So many VMs at
 * once give up `--mib` together and take it back, `--rounds` times; contenders take turns, each round from another start.
 * `--daemons`: so many of this build share the VMs, as one more contender.
 */
const { values: wanted } = parseArgs({
  options: {
    before: { type: 'string' },
    vms: { type: 'string', default: '1,2,4,10' },
    mib: { type: 'string', default: '512' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
    guest: { type: 'boolean', default: false },
    daemons: { type: 'string', default: '1' },
  },
});
const MIB = Number(wanted.mib);
const ROUNDS = Number(wanted.rounds);
const SHARING = Number(wanted.daemons);
/** QEMU's own balloon gives up a part of it, as it may take a minute for a GiB, and is as slow from the first page on. */
const BUILTIN_PART = 4;
/** By then all have heard of it. */
const AHEAD_NS = 20_000_000n;
const STEPS: readonly Step[] = ['inflate', 'deflate'];

interface Candidate {
  readonly name: string;
  readonly kind: Kind;
  /** Of the daemons that serve it. */
  readonly program?: string;
  /** So many daemons share the VMs; without, one serves all. */
  readonly daemons?: number;
}

interface Contender {
  readonly name: string;
  readonly kind: Kind;
  readonly player: Player<FrontendsPart>;
  readonly daemonPids: readonly number[];
  readonly vmmPids: readonly number[];
  /** Per VM. */
  readonly mib: number;
  readonly rounds: Record<Step, Round[]>;
  readonly systemCalls: Partial<Record<Step, number>>;
}

interface Cost {
  readonly daemon: number;
  readonly vmms: number;
  readonly switches: number;
}

interface Round {
  readonly told: readonly Told[];
  readonly cost: Cost;
}

const BUILDS = [
  ...(wanted.before === undefined
    ? []
    : [{ name: 'the build before', program: join(wanted.before, 'out/bin/balloond.js') }]),
  { name: 'this build', program: join(BIN, 'balloond.js') },
];
const ALL: readonly Candidate[] = [
  ...BUILDS.map((build): Candidate => ({ ...build, kind: 'raw' })),
  ...(SHARING > 1 ? BUILDS.slice(-1) : []).map(({ name, program }): Candidate => ({
    name: `${name}, ${SHARING} daemons`,
    program,
    kind: 'raw',
    daemons: SHARING,
  })),
  ...BUILDS.map(({ name, program }): Candidate => ({
    name: `${name}, behind QEMU`,
    program,
    kind: 'vhost-user device',
  })),
  { name: 'QEMU built-in', kind: 'built-in' },
  { name: 'limit', kind: 'limit' },
];
const CANDIDATES = ALL.filter(({ name }) => name.includes(wanted.only));

const { qemu } = await ensureLab();
const daemons = new Map<string, DaemonProcess[]>();

/** The first of them serves where one is enough. */
async function daemonsOf({ program, daemons: count = 1 }: Candidate): Promise<DaemonProcess[]> {
  if (program === undefined) return [];
  const running = daemons.get(program) ?? [];
  while (running.length < count) running.push(await DaemonProcess.start({ program }));
  daemons.set(program, running);
  return running.slice(0, count);
}

async function connect(candidate: Candidate, vms: number): Promise<Contender> {
  const serving = await daemonsOf(candidate);
  const player = new Player<FrontendsPart>('frontends.js');
  const mib = Math.ceil(MIB / vms / (candidate.kind === 'built-in' ? BUILTIN_PART : 1));
  const vmmPids = await player.ask('connect', {
    ...{ kind: candidate.kind, vms, mib, qemu },
    socketPaths: serving.map(({ socketPath }) => socketPath),
  });
  return {
    ...{ name: candidate.name, kind: candidate.kind, player, vmmPids, mib },
    daemonPids: serving.map(({ pid }) => pid),
    rounds: { inflate: [], deflate: [] },
    systemCalls: {},
  };
}

function costOf({ daemonPids, vmmPids }: Contender): Cost {
  const sum = (pids: readonly number[], of: (pid: number) => number): number =>
    pids.reduce((all, pid) => all + of(pid), 0);
  return {
    daemon: sum(daemonPids, cpuSeconds),
    vmms: sum(vmmPids, cpuSeconds),
    switches: sum(daemonPids.length === 0 ? vmmPids : daemonPids, contextSwitches),
  };
}

function move({ player }: Contender, step: Step): Promise<Told[]> {
  return player.ask('move', { step, at: String(process.hrtime.bigint() + AHEAD_NS) });
}

async function run(contender: Contender): Promise<void> {
  await contender.player.ask('fill', null);
  for (const step of STEPS) {
    const before = costOf(contender);
    const told = await move(contender, step);
    const after = costOf(contender);
    contender.rounds[step].push({
      told,
      cost: {
        daemon: after.daemon - before.daemon,
        vmms: after.vmms - before.vmms,
        switches: after.switches - before.switches,
      },
    });
  }
}

/** In a round of its own, as it takes several times as long. */
async function countSystemCalls(contender: Contender): Promise<void> {
  const { daemonPids, player, vmmPids, mib } = contender;
  const [daemonPid, ...others] = daemonPids;
  if (daemonPid === undefined || others.length > 0) return;
  await player.ask('fill', null);
  for (const step of STEPS) {
    const counts = await systemCallsDuring(daemonPid, () => move(contender, step));
    const calls = [...counts.values()].reduce((sum, count) => sum + count, 0);
    contender.systemCalls[step] = calls / (mib * vmmPids.length);
  }
}

/** GiB/s of all VMs together, from when the first began until the last had come so far. */
function speed(mib: number, told: readonly Told[], until: 'answered' | 'ended'): number {
  const begun = Math.min(...told.map((each) => each.begun));
  const ended = Math.max(...told.map((each) => each[until]));
  return (mib * told.length) / 1024 / ((ended - begun) / 1e9);
}

function among(values: readonly number[]): string {
  const of = (value: number): string => value.toPrecision(3);
  return `${of(median(values))} (${of(Math.min(...values))}..${of(Math.max(...values))})`;
}

function waits(rounds: readonly Round[], of: 'acks' | 'gets' | 'sets'): string {
  const micros = rounds.flatMap(({ told }) => told.flatMap((each) => each[of]));
  if (micros.length === 0) return '-';
  return `${percentile(micros, 50).toFixed(0)}, ${percentile(micros, 99).toFixed(0)}`;
}

function row(contender: Contender, step: Step): Row {
  const { name, rounds, daemonPids, vmmPids, mib } = contender;
  const of = rounds[step];
  const mibInAll = mib * vmmPids.length;
  const per = (amount: number, pick: (cost: Cost) => number): string =>
    (median(of.map(({ cost }) => pick(cost))) / amount).toFixed(2);
  return {
    VMs: vmmPids.length,
    step: `${step}s`,
    contender: name,
    'GiB/s acked': among(of.map(({ told }) => speed(mib, told, 'answered'))),
    'GiB/s until free': step === 'inflate' ? among(of.map(({ told }) => speed(mib, told, 'ended'))) : '-',
    'daemon CPU s/GiB': daemonPids.length === 0 ? '-' : per(mibInAll / 1024, ({ daemon }) => daemon),
    'VMM CPU s/GiB': per(mibInAll / 1024, ({ vmms }) => vmms),
    'system calls/MiB': contender.systemCalls[step]?.toFixed(1) ?? '-',
    'context switches/MiB': per(mibInAll, ({ switches }) => switches),
    'ack p50, p99 µs': waits(of, 'acks'),
    'GET_CONFIG p50, p99 µs': waits(of, 'gets'),
    'SET_CONFIG p50, p99 µs': waits(of, 'sets'),
  };
}

async function together(vms: number): Promise<Row[]> {
  const contenders: Contender[] = [];
  try {
    for (const candidate of CANDIDATES) contenders.push(await connect(candidate, vms));
    for (let round = 0; round < ROUNDS; round++) {
      const first = round % contenders.length;
      for (const contender of [...contenders.slice(first), ...contenders.slice(0, first)])
        await run(contender);
    }
    if (countsSystemCalls()) for (const contender of contenders) await countSystemCalls(contender);
  } finally {
    for (const { player } of contenders) await player.stop();
  }
  return STEPS.flatMap((step) =>
    contenders
      .filter(({ kind }) => !(step === 'deflate' && kind === 'limit'))
      .map((contender) => row(contender, step)),
  );
}

buildVcpu();
const rows: Row[] = [];
try {
  for (const vms of wanted.vms.split(',').map(Number)) rows.push(...(await together(vms)));
} finally {
  for (const daemon of [...daemons.values()].flat()) await daemon.stop();
}
report('real', rows);
if (wanted.guest) report('real-guest', await guestRows(BUILDS));
process.exit();
