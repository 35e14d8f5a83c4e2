import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { BIN, DaemonProcess } from '../test/support/daemon.js';
import type { CrowdPart } from './crowd.js';
import { parts, patterns, PFNS_PER_KICK } from './patterns.js';
import { Player } from './player.js';
import { cpuSeconds, residentMib } from './process-cost.js';
import { RawDriver } from './raw-driver.js';
import { median, report } from './table.js';

/**
 * This build beside an earlier one that was built in `--before DIR`, both in one run: microseconds from a kick to its ack,
 * which take turns; the CPU of daemons with a hundred VMs at rest, three of each build, which rest together for `--rest-seconds`
 * (default 600) when V8 has compiled what they do (`--settle-seconds`, default 1,800); and the resident memory of a daemon with `--vms`
 * VMs (default 1,000), one after the other, at the median of five. `--only WORDS`: the rows that begin with these.
 */
const { values } = parseArgs({
  options: {
    before: { type: 'string' },
    vms: { type: 'string', default: '1000' },
    'settle-seconds': { type: 'string', default: '1800' },
    'rest-seconds': { type: 'string', default: '600' },
    only: { type: 'string', default: '' },
  },
});
if (values.before === undefined) throw new Error('say --before DIR');
const MIB = 64;
const ROUNDS = 60;
const WARM_ROUNDS = 10;
const IDLE_VMS = 100;
const IDLE_DAEMONS = 3;
const SETTLE_SECONDS = 30;
/** V8 compiles nine functions of ten in the first three minutes; after five, an eighth of all CPU still goes into that. */
const COMPILED_SECONDS = Number(values['settle-seconds']);
const MEMORY_ROUNDS = 5;
const IDLE_SECONDS = Number(values['rest-seconds']);
const VMS_PER_PROCESS = 100;

const BUILDS = [
  ['the build before', join(values.before, 'out/bin/balloond.js')],
  ['this build', join(BIN, 'balloond.js')],
] as const;
type Figure = readonly [number, number];

async function onEach<T>(work: (program: string) => Promise<T>): Promise<[T, T]> {
  const [before, now] = BUILDS;
  return [await work(before[1]), await work(now[1])];
}

/** Microseconds, at the median, of a driver that spins. */
async function kickToAck(): Promise<Figure> {
  const sides = await onEach(async (program) => {
    const daemon = await DaemonProcess.start({ program });
    const driver = await RawDriver.start({ socketPath: daemon.socketPath, mib: MIB });
    return { daemon, driver, micros: [] as number[] };
  });
  for (let round = -WARM_ROUNDS; round < ROUNDS; round++) {
    for (const { driver, micros } of sides) {
      driver.populate();
      const [sequential] = patterns(driver.firstPfn, driver.pages);
      const buffers = parts(sequential?.pfns ?? new Uint32Array(), PFNS_PER_KICK);
      for (const buffer of buffers) {
        driver.inflating.offer(buffer);
        const begun = performance.now();
        driver.inflating.kick();
        driver.inflating.spin();
        if (round >= 0) micros.push((performance.now() - begun) * 1000);
      }
      await driver.waitFree();
      await driver.deflating.tell(buffers);
    }
  }
  for (const { daemon, driver } of sides) {
    driver.close();
    await daemon.stop();
  }
  return [median(sides[0].micros), median(sides[1].micros)];
}

/** Milliseconds of CPU a second, at the median: processes of one build differ, by the order in which V8 compiles what they do. */
async function atRest(): Promise<Figure> {
  const resting = async (
    program: string,
  ): Promise<{ daemon: DaemonProcess; players: Player<CrowdPart>[] }> => {
    const daemon = await DaemonProcess.start({ program });
    return { daemon, players: await crowd(daemon, IDLE_VMS) };
  };
  const pairs: Awaited<ReturnType<typeof resting>>[][] = [];
  for (let n = 0; n < IDLE_DAEMONS; n++) pairs.push(await onEach(resting));
  await pause(COMPILED_SECONDS * 1000);
  const used = (): number[][] => pairs.map((pair) => pair.map(({ daemon }) => cpuSeconds(daemon.pid)));
  const begun = used();
  await pause(IDLE_SECONDS * 1000);
  const ended = used();
  for (const { daemon, players } of pairs.flat()) {
    for (const player of players) await player.stop();
    await daemon.stop();
  }
  const perSecond = (side: 0 | 1): number =>
    median(begun.map((pair, n) => (((ended[n]?.[side] ?? NaN) - (pair[side] ?? NaN)) / IDLE_SECONDS) * 1000));
  return [perSecond(0), perSecond(1)];
}

/** MiB, at the median: the collector of garbage decides about a part of each figure. */
async function resident(): Promise<Figure> {
  const rounds: Figure[] = [];
  for (let round = 0; round < MEMORY_ROUNDS; round++) rounds.push(await residentOnce());
  return [median(rounds.map(([before]) => before)), median(rounds.map(([, now]) => now))];
}

function residentOnce(): Promise<Figure> {
  return onEach(async (program) => {
    const daemon = await DaemonProcess.start({ program });
    const players = await crowd(daemon, Number(values.vms));
    await pause(SETTLE_SECONDS * 1000);
    const mib = residentMib(daemon.pid);
    for (const player of players) await player.stop();
    await daemon.stop();
    return mib;
  });
}

async function crowd({ socketPath }: DaemonProcess, vms: number): Promise<Player<CrowdPart>[]> {
  const players: Player<CrowdPart>[] = [];
  for (let left = vms; left > 0; left -= VMS_PER_PROCESS) {
    const player = new Player<CrowdPart>('crowd.js');
    await player.ask('connect', { socketPath, vms: Math.min(left, VMS_PER_PROCESS), mib: 2 });
    players.push(player);
  }
  return players;
}

async function row(
  what: string,
  measure: () => Promise<Figure>,
  digits: number,
): Promise<Record<string, string>[]> {
  if (!what.startsWith(values.only)) return [];
  const [before, now] = await measure();
  return [
    {
      what,
      'the build before': before.toFixed(digits),
      'this build': now.toFixed(digits),
      ratio: (now / before).toFixed(2),
    },
  ];
}

report('builds', [
  ...(await row('kick to ack, p50 µs', kickToAck, 1)),
  ...(await row(`CPU of ${IDLE_VMS} VMs at rest, ms a second`, atRest, 2)),
  ...(await row(`resident memory with ${values.vms} VMs, MiB`, resident, 0)),
]);
process.exit();
