import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import { ROGUE_KINDS, type RogueKind } from '../test/support/rogue.js';
import { EchoLine } from './echo-line.js';
import { parts, patterns, PFNS_PER_KICK } from './patterns.js';
import { Player } from './player.js';
import { RawDriver } from './raw-driver.js';
import type { RoguesPart } from './rogues.js';
import { percentile, report, type Row } from './table.js';

/**
 * How long 90 VMs wait for their acks while up to 10 others misbehave at full rate; and what an echo without any
 * daemon takes at the same time, which is the machine's part of it.
 */
const { values: wanted } = parseArgs({
  options: { honest: { type: 'string', default: '90' }, seconds: { type: 'string', default: '5' } },
});
const HONEST = Number(wanted.honest);
const MS = 1000 * Number(wanted.seconds);
const MIB = 1;
const APART_MS = 1;
const WARM_ROUNDS = 20;
/** They are all at it by then. */
const SETTLE_MS = 1500;

/** One buffer after the other, and all of it back when none is left. */
class HonestVm {
  readonly #driver: RawDriver;
  readonly #buffers: Uint32Array[];
  #next = 0;

  constructor(driver: RawDriver) {
    this.#driver = driver;
    const [sequential] = patterns(driver.firstPfn, driver.pages);
    this.#buffers = sequential === undefined ? [] : parts(sequential.pfns, PFNS_PER_KICK);
  }

  /** Microseconds to the ack, of which it is told as a guest is: it sleeps until the call. */
  async kick(): Promise<number> {
    const { inflating, deflating } = this.#driver;
    const ring = this.#next++ % 2 === 0 ? inflating : deflating;
    ring.offer(this.#buffers[0] ?? new Uint32Array());
    const start = performance.now();
    ring.kick();
    await ring.sleep();
    return (performance.now() - start) * 1000;
  }
}

async function kicks(vms: readonly HonestVm[], ms: number): Promise<number[]> {
  const micros: number[] = [];
  for (let n = 0, end = performance.now() + ms; performance.now() < end; n++) {
    await pause(APART_MS);
    const vm = vms[n % vms.length];
    if (vm !== undefined) micros.push(await vm.kick());
  }
  return micros;
}

async function echoes(ms: number): Promise<number[]> {
  const line = await EchoLine.start('sleeps');
  const micros: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end;) {
    await pause(APART_MS);
    const start = performance.now();
    line.kick();
    line.spin();
    micros.push((performance.now() - start) * 1000);
  }
  await line.close();
  return micros;
}

function row(hostile: string, what: string, micros: readonly number[], steps: number | string): Row {
  return {
    hostile,
    what,
    'p50 µs': percentile(micros, 50).toFixed(0),
    'p90 µs': percentile(micros, 90).toFixed(0),
    'p99 µs': percentile(micros, 99).toFixed(0),
    'max µs': Math.max(...micros).toFixed(0),
    kicks: micros.length,
    'bad inputs a second': steps,
  };
}

const daemon = await DaemonProcess.start();
const { socketPath } = daemon;
const rows: Row[] = [];
const ack = `kick to ack of ${HONEST} VMs`;

async function during(hostile: string, kinds: readonly RogueKind[], vms: readonly HonestVm[]): Promise<void> {
  const player = new Player<RoguesPart>('rogues.js');
  try {
    await player.ask('begin', { socketPath, kinds });
    await pause(SETTLE_MS);
    const before = await player.ask('count', null);
    const micros = await kicks(vms, MS);
    const after = await player.ask('count', null);
    const steps = kinds.reduce((sum, kind) => sum + (after[kind] ?? 0) - (before[kind] ?? 0), 0);
    rows.push(row(hostile, ack, micros, (steps / (MS / 1000)).toFixed(0)));
    if (kinds.length > 1) rows.push(row(hostile, 'floor: an echo without a daemon', await echoes(MS), ''));
  } finally {
    await player.stop();
  }
}

try {
  const vms: HonestVm[] = [];
  while (vms.length < HONEST) vms.push(new HonestVm(await RawDriver.start({ socketPath, mib: MIB })));
  for (let round = 0; round < WARM_ROUNDS; round++) for (const vm of vms) await vm.kick();
  rows.push(row('nobody', ack, await kicks(vms, MS), ''));
  rows.push(row('nobody', 'floor: an echo without a daemon', await echoes(MS), ''));
  for (const kind of ROGUE_KINDS) await during(kind, [kind], vms);
  await during(`${ROGUE_KINDS.length} VMs, one of each`, ROGUE_KINDS, vms);
} finally {
  await daemon.stop();
}
report('hostile', rows);
process.exit(0);
