import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import type { CrowdOptions, CrowdPart, Load } from './crowd.js';
import { parts, patterns, PFNS_PER_KICK } from './patterns.js';
import { Player } from './player.js';
import { busyPercent, cpuSeconds, memoryKib } from './process-cost.js';
import { RawDriver } from './raw-driver.js';
import { percentile, report, type Row } from './table.js';

/**
 * What VMs cost each other and the host. First: how long one VM waits for its ack while another gives memory up as
 * fast as it can; and, to tell the daemon's part from the machine's, the same while that other VM is served by
 * another daemon. Then: what 1 to 1,000 VMs cost the daemon, at rest and when all give memory up at once; with
 * `--vms N,N` only that.
 */
const { vms: wanted } = parseArgs({ options: { vms: { type: 'string' } } }).values;
const CROWDS = (wanted ?? '1,10,100,1000').split(',').map(Number);

type Crowd = Player<CrowdPart>;
type Server = 'nobody' | 'another daemon' | 'the same daemon';

/** A kick every millisecond is no load. */
const APART_MS = 1;
const WARM_KICKS = 2000;
const SAMPLES = 1500;
const PROBE_MIB = 16;
const NOISY_MIB = 512;
const LOADS: readonly Load[] = ['sequential', 'random', 'longest'];

/** What all VMs of a crowd have to give up together. */
const CROWD_MIB = 2048;
/** The daemon looks at the open files of each VM's process: they are to be about as many as a VMM has. */
const VMS_PER_PROCESS = 10;
/** The garbage of starting up is collected by then, and that of so many connections. */
const SETTLE_SECONDS = 25;
const CONNECTED_SECONDS = 60;
const IDLE_SECONDS = 30;
/** Fewer are lost in what the collector does meanwhile. */
const COUNTABLE_VMS = 100;
/** Served before anything is counted, so that code and heap have grown to what they are. */
const WARM_VMS = 20;

async function crowd(options: CrowdOptions): Promise<{ player: Crowd; seconds: number }> {
  const player: Crowd = new Player('crowd.js');
  return { player, seconds: await player.ask('connect', options) };
}

/** One VM's kicks, until it is told to end. */
class Probe {
  readonly #driver: RawDriver;
  readonly #buffers: Uint32Array[];
  #next = 0;

  private constructor(driver: RawDriver) {
    this.#driver = driver;
    const [sequential] = patterns(driver.firstPfn, driver.pages);
    this.#buffers = sequential === undefined ? [] : parts(sequential.pfns, PFNS_PER_KICK);
  }

  static async start(socketPath: string): Promise<Probe> {
    const probe = new Probe(await RawDriver.start({ socketPath, mib: PROBE_MIB }));
    for (let n = 0; n < WARM_KICKS; n++) await probe.kick();
    return probe;
  }

  /** Microseconds to the ack; everything is taken back when all is given up. */
  async kick(): Promise<number> {
    const { inflating, deflating } = this.#driver;
    const buffer = this.#buffers[this.#next++];
    if (buffer === undefined) {
      this.#next = 0;
      await deflating.tell(this.#buffers);
      return this.kick();
    }
    inflating.offer(buffer);
    const start = performance.now();
    inflating.kick();
    await inflating.sleep();
    return (performance.now() - start) * 1000;
  }

  async during(work: Promise<unknown>): Promise<number[]> {
    const micros: number[] = [];
    const state = { ended: false };
    const end = work.finally(() => (state.ended = true));
    while (!state.ended) {
      await pause(APART_MS);
      micros.push(await this.kick());
    }
    await end;
    return micros;
  }

  close(): void {
    this.#driver.close();
  }
}

async function waits(load: Load, server: Server, socketPath: string, otherPath: string): Promise<Row> {
  const probe = await Probe.start(socketPath);
  const micros: number[] = [];
  if (server === 'nobody') {
    micros.push(...(await probe.during(pause(SAMPLES * 1.5 * APART_MS))));
  } else {
    const { player } = await crowd({
      socketPath: server === 'the same daemon' ? socketPath : otherPath,
      vms: 1,
      mib: NOISY_MIB,
      longest: load === 'longest',
      depth: 64,
    });
    while (micros.length < SAMPLES) {
      await player.ask('populate', null);
      micros.push(...(await probe.during(player.ask('inflate', { load }))));
      await player.ask('waitFree', null);
      await player.ask('deflate', null);
    }
    await player.stop();
  }
  probe.close();
  return {
    'the other VM': server === 'nobody' ? 'rests' : `inflates, ${load}`,
    'is served by': server,
    'p50 µs': percentile(micros, 50).toFixed(0),
    'p90 µs': percentile(micros, 90).toFixed(0),
    'p99 µs': percentile(micros, 99).toFixed(0),
    'max µs': Math.max(...micros).toFixed(0),
    kicks: micros.length,
  };
}

async function costs(vms: number): Promise<Row> {
  const daemon = await DaemonProcess.start();
  const { socketPath, pid } = daemon;
  const players: Crowd[] = [];
  const all = <T>(act: (player: Crowd) => Promise<T>): Promise<T[]> => Promise.all(players.map(act));
  try {
    const warm = await crowd({ socketPath, vms: WARM_VMS, mib: 1 });
    await warm.player.ask('inflate', { load: 'sequential' });
    await warm.player.stop();
    await pause(SETTLE_SECONDS * 1000);

    const before = memoryKib(pid);
    const mib = Math.floor(CROWD_MIB / vms);
    let connectSeconds = 0;
    for (let left = vms; left > 0; left -= VMS_PER_PROCESS) {
      const made = await crowd({ socketPath, vms: Math.min(left, VMS_PER_PROCESS), mib });
      players.push(made.player);
      connectSeconds += made.seconds;
    }
    await pause(CONNECTED_SECONDS * 1000);
    const idlePercent = await busyPercent(pid, IDLE_SECONDS);
    const after = memoryKib(pid);
    const each = (kind: keyof typeof after): string =>
      vms < COUNTABLE_VMS ? '-' : ((after[kind] - before[kind]) / vms).toFixed(0);

    await all((player) => player.ask('populate', null));
    const workBefore = cpuSeconds(pid);
    const start = performance.now();
    await all((player) => player.ask('inflate', { load: 'sequential' }));
    const acked = (performance.now() - start) / 1000;
    await all((player) => player.ask('waitFree', null));
    const free = (performance.now() - start) / 1000;
    const gib = (vms * mib) / 1024;
    return {
      VMs: vms,
      'connect ms each': ((connectSeconds * 1000) / vms).toFixed(1),
      'RSS MiB in all': (after.Rss / 1024).toFixed(0),
      'RSS KiB each': each('Rss'),
      'PSS KiB each': each('Pss'),
      'anonymous KiB each': each('Pss_Anon'),
      'idle CPU % of a core': idlePercent.toFixed(2),
      'GiB/s acked': (gib / acked).toFixed(2),
      'GiB/s free': (gib / free).toFixed(2),
      'daemon CPU s/GiB': ((cpuSeconds(pid) - workBefore) / gib).toFixed(2),
    };
  } finally {
    await all((player) => player.stop());
    await daemon.stop();
  }
}

async function latencies(): Promise<Row[]> {
  const [daemon, other] = [await DaemonProcess.start(), await DaemonProcess.start()];
  const rows: Row[] = [];
  try {
    for (const load of LOADS) {
      for (const server of ['nobody', 'another daemon', 'the same daemon'] as const) {
        if (server === 'nobody' && load !== LOADS[0]) continue;
        rows.push(await waits(load, server, daemon.socketPath, other.socketPath));
      }
    }
  } finally {
    await daemon.stop();
    await other.stop();
  }
  return rows;
}

if (wanted === undefined) report('neighbours-latency', await latencies());

const scale: Row[] = [];
for (const vms of CROWDS) scale.push(await costs(vms));
report('neighbours-scale', scale);
