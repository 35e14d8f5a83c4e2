import { setTimeout as pause } from 'node:timers/promises';
import { DaemonProcess } from '../test/support/daemon.js';
import { ConfigLine } from './config-line.js';
import { EchoLine } from './echo-line.js';
import { parts, patterns, PFNS_PER_KICK } from './patterns.js';
import { RawDriver } from './raw-driver.js';
import type { RawRing } from './raw-ring.js';
import { percentile, report, type Row } from './table.js';

/**
 * What a driver waits for when no VMM is in the way: the ack of a buffer of 256 pages, and the config reads and
 * writes that come with each; beside it what the same eventfds cost with no device behind them.
 *
 * A driver spins, which takes a core from those who discard, or sleeps until it is called; it goes on at once, or
 * after a pause, in which the daemon falls asleep.
 */
const MIB = 256;
const WARM_KICKS = 4000;
const COLD_KICKS = 200;
const KICKS = 2048;
const CONFIG_TRIPS = 4000;
const PAUSE_MS = 1;

type Waits = 'spins' | 'sleeps';
const WAYS: readonly (readonly [Waits, number])[] = [
  ['spins', 0],
  ['spins', PAUSE_MS],
  ['sleeps', 0],
];

interface Line {
  kick(): void;
  spin(): void;
  sleep(): Promise<void>;
}

/** Microseconds of one kick after another; `offer` comes before the clock starts. */
async function trips(
  line: Line,
  offers: Iterable<() => void>,
  [waits, pauseMs]: readonly [Waits, number],
): Promise<number[]> {
  const micros: number[] = [];
  for (const offer of offers) {
    if (pauseMs > 0) await pause(pauseMs);
    offer();
    const start = performance.now();
    line.kick();
    if (waits === 'spins') line.spin();
    else await line.sleep();
    micros.push((performance.now() - start) * 1000);
  }
  return micros;
}

const rows: Row[] = [];

function add(what: string, driver: string, micros: readonly number[]): void {
  rows.push({
    what,
    driver,
    'p50 µs': percentile(micros, 50).toFixed(0),
    'p90 µs': percentile(micros, 90).toFixed(0),
    'p99 µs': percentile(micros, 99).toFixed(0),
    'max µs': Math.max(...micros).toFixed(0),
  });
}

function way([waits, pauseMs]: readonly [Waits, number]): string {
  return pauseMs > 0 ? `${waits}, ${pauseMs} ms apart` : waits;
}

async function floor(): Promise<void> {
  for (const how of ['spins', 'sleeps'] as const) {
    const line = await EchoLine.start(how);
    const nothing = Array.from({ length: KICKS }, () => () => undefined);
    await trips(line, nothing, ['spins', 0]);
    for (const each of WAYS) {
      // One that spins through a pause has used up its turn on the core when the kick comes.
      if (how === 'spins' && each[1] > 0) continue;
      add(`floor: an echo that ${how}`, way(each), await trips(line, nothing, each));
    }
    await line.close();
  }
}

function* offers(ring: RawRing, buffers: readonly Uint32Array[]): Generator<() => void> {
  for (const buffer of buffers) yield () => ring.offer(buffer);
}

/** All of the memory, given up and taken back until there are enough samples. */
async function kickToAck(socketPath: string, mustTellHost: boolean): Promise<void> {
  const driver = await RawDriver.start({ socketPath, mib: MIB, mustTellHost });
  const { inflating, deflating } = driver;
  const all = patterns(driver.firstPfn, driver.pages).filter(({ name }) => /sequential|random/.test(name));
  const [warm = []] = all.map(({ pfns }) => parts(pfns, PFNS_PER_KICK));
  const cold: number[] = [];
  for (let n = 0; n < WARM_KICKS; n += 2 * warm.length) {
    cold.push(...(await trips(inflating, offers(inflating, warm), ['spins', 0])));
    await deflating.tell(warm);
  }
  if (mustTellHost) add(`inflate, sequential, first ${COLD_KICKS}`, 'spins', cold.slice(0, COLD_KICKS));
  const told = mustTellHost ? '' : ', without MUST_TELL_HOST';
  for (const { name, pfns } of all) {
    const buffers = parts(pfns, PFNS_PER_KICK);
    for (const each of WAYS) {
      const inflates: number[] = [];
      const deflates: number[] = [];
      while (inflates.length < KICKS) {
        driver.populate();
        inflates.push(...(await trips(inflating, offers(inflating, buffers), each)));
        await driver.waitFree();
        deflates.push(...(await trips(deflating, offers(deflating, buffers), each)));
      }
      add(`inflate, ${name}${told}`, way(each), inflates);
      if (mustTellHost) add(`deflate, ${name}`, way(each), deflates);
    }
  }
  driver.close();
}

async function config(socketPath: string): Promise<void> {
  const line = new ConfigLine(socketPath);
  for (const [what, ask] of [
    ['GET_CONFIG and its reply', () => line.get()],
    ['SET_CONFIG and its acknowledgement', () => line.set()],
  ] as const) {
    const micros = Array.from({ length: CONFIG_TRIPS }, () => {
      const start = performance.now();
      ask();
      return (performance.now() - start) * 1000;
    });
    add(`${what}, first ${COLD_KICKS}`, 'spins', micros.slice(0, COLD_KICKS));
    add(what, 'spins', micros.slice(CONFIG_TRIPS / 2));
  }
  line.close();
  await pause(0);
}

await floor();
const daemon = await DaemonProcess.start();
try {
  await kickToAck(daemon.socketPath, true);
  await kickToAck(daemon.socketPath, false);
  await config(daemon.socketPath);
} finally {
  await daemon.stop();
}
report('latency', rows);
