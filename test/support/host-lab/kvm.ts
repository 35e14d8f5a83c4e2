// What is tried with a guest under KVM, in one program, as each takes long to start in the host VM: `kvm.js PROGRAM SECONDS KILLS PARTS`
// prints a KvmReport. PROGRAM is the balloond that is tried; in the part `swings`, the target swings for SECONDS, and the daemon gets
// SIGKILL KILLS times. PARTS are `figures`, `features` and `swings`, with commas.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Cgroup } from '../../../src/host/cgroup.js';
import { ControlClient, UnreachableError } from '../../../src/control/client.js';
import { DaemonProcess } from '../daemon.js';
import { eventually } from '../deadline.js';
import { buildCacheModule, loadCacheModule } from '../lab/cache-module.js';
import { Guest } from '../lab/guest.js';
import { MACHINES } from '../lab/machines.js';
import { letReport } from '../lab/reporting.js';
import { addCosts, costsNow, perUnit, type Costs } from './costs.js';

const MIB = 2 ** 20;
const NAME = 'kvm';
const RAM_MIB = 512;
const HELD_MIB = 96;
const LARGE_BYTES = 256 * MIB;
const SMALL_BYTES = 32 * MIB;
const ROUNDS = 6;
/** Of either balloon: to look costs time of an emulated processor. */
const LOOK_MS = 50;
/** A guest under emulated KVM takes minutes on a busy machine. */
const PATIENCE_MS = 600_000;

/** Milliseconds for LARGE_BYTES, of each round. */
export interface Rounds {
  inflateMs: number[];
  deflateMs: number[];
  /** For each MiB, of all rounds. */
  inflateCosts: Costs;
  deflateCosts: Costs;
}

interface Features {
  /** Bytes of guest memory on the host, around an inflate. */
  fullBytes: number;
  inflatedBytes: number;
  /** The same before and after free memory was reported. */
  beforeReportBytes: number;
  reportedBytes: number;
  /** Of the page cache balloon: what it held, and what was left under pressure. */
  cacheHeldBytes: number;
  cacheUnderPressureBytes: number;
  /** memory.high with a full and an empty balloon, and what was charged to the VMM. */
  highInflatedBytes: number;
  highDeflatedBytes: number;
  chargedBytes: number;
}

interface Swings {
  /** Targets that were set. */
  moves: number;
  kills: number;
  lostPages: number;
  lostInTheEnd: number;
  inflatedTotalBytes: number;
}

/** A part that was not asked for is null. */
export interface KvmReport {
  /** The word of QEMU. */
  isKvm: boolean;
  kernel: string;
  /** Those of the devices, as the guest counts them. */
  interrupts: string;
  /** MSI-X vectors of each device that has some, by its PCI number. */
  vectors: Record<string, number>;
  /** With the kernel's own driver: of the daemon and of QEMU's own balloon. And of the daemon with our driver. */
  figures: { ours: Rounds; builtin: Rounds; ourDriver: Rounds } | null;
  features: Features | null;
  swings: Swings | null;
  verdict: string | null;
  /** Lines of the daemon's log that tell of a fault. */
  faults: string[];
}

const [, , program = '', seconds = '', kills = '', parts = ''] = process.argv;

function say(what: string): void {
  process.stderr.write(`${(performance.now() / 1000).toFixed(1)} s: ${what}\n`);
}

/** As DaemonProcess.inflateTo, with more patience. */
async function inflateTo(daemon: DaemonProcess, balloonBytes: number): Promise<void> {
  await new ControlClient(daemon.controlPath).setTarget(NAME, { balloonBytes });
  await daemon.until(
    NAME,
    ({ balloon }) => balloon.actualBytes === balloonBytes,
    `${balloonBytes} in the balloon`,
    PATIENCE_MS,
  );
}

/** As eventually(), with more patience. */
async function untilSo(condition: () => boolean | Promise<boolean>, what: () => string): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !(await condition()); await sleep(LOOK_MS)) {
    if (performance.now() > end) throw new Error(`never: ${what()}`);
  }
}

/** The same, told by the daemon's log: to answer requests takes an emulated daemon longer than a MiB. */
async function inflateUnasked(daemon: DaemonProcess, balloonBytes: number): Promise<void> {
  const told = daemon.log.length;
  await new ControlClient(daemon.controlPath).setTarget(NAME, { balloonBytes });
  await untilSo(
    () => daemon.log.includes('"event":"target-reached"', told),
    () => `${balloonBytes} in the balloon: ${daemon.log.slice(told)}`,
  );
}

async function timed(work: () => Promise<void>): Promise<number> {
  const begin = performance.now();
  await work();
  return Math.round(performance.now() - begin);
}

/** `look` says what was taken until now. */
async function rounds(resize: (balloonBytes: number) => Promise<void>, look: () => Costs): Promise<Rounds> {
  const [inflateMs, deflateMs]: [number[], number[]] = [[], []];
  let [inflateCosts, deflateCosts]: [Costs, Costs] = [{}, {}];
  for (let round = 0; round < ROUNDS; round++) {
    const start = look();
    inflateMs.push(await timed(() => resize(LARGE_BYTES)));
    const full = look();
    deflateMs.push(await timed(() => resize(0)));
    inflateCosts = addCosts(inflateCosts, start, full);
    deflateCosts = addCosts(deflateCosts, full, look());
  }
  const units = (ROUNDS * LARGE_BYTES) / MIB;
  return {
    inflateMs,
    deflateMs,
    inflateCosts: perUnit(inflateCosts, units),
    deflateCosts: perUnit(deflateCosts, units),
  };
}

/** QEMU's own balloon, in a VM that is alike, while the other one is paused. */
async function builtinRounds(): Promise<Rounds> {
  const guest = await Guest.boot({
    name: 'builtin',
    machine: MACHINES.kvm,
    memoryMib: RAM_MIB,
    acpi: true,
    builtinBalloon: true,
  });
  try {
    await guest.waitReady(PATIENCE_MS);
    await guest.eat(LARGE_BYTES / MIB, PATIENCE_MS);
    return await rounds(
      async (balloonBytes) => {
        const value = RAM_MIB * MIB - balloonBytes;
        await guest.qmp('balloon', { value });
        await untilSo(
          async () => ((await guest.qmp('query-balloon')) as { actual: number }).actual === value,
          () => `QEMU's balloon is ${balloonBytes}`,
        );
      },
      () => costsNow(guest.pid, null),
    );
  } finally {
    await guest.kill();
  }
}

async function tryReporting(guest: Guest): Promise<Pick<Features, 'beforeReportBytes' | 'reportedBytes'>> {
  await guest.hold(LARGE_BYTES / MIB, 2, PATIENCE_MS);
  const beforeReportBytes = guest.memfdAllocatedBytes();
  await guest.drop();
  // Pages on the per-CPU lists of Linux keep the blocks around them from being reported (findings/linux-reports-late.sh).
  await guest.sh('echo 1 >/proc/sys/vm/compact_memory', PATIENCE_MS);
  // By the clock of the guest, which is slow here.
  await eventually(
    async () => {
      await letReport(guest, PATIENCE_MS);
      return guest.memfdAllocatedBytes() < beforeReportBytes - LARGE_BYTES / 2;
    },
    () => `the host gets what is reported: ${beforeReportBytes} and now ${guest.memfdAllocatedBytes()}`,
  );
  return { beforeReportBytes, reportedBytes: guest.memfdAllocatedBytes() };
}

async function tryCache(
  guest: Guest,
  control: ControlClient,
): Promise<Pick<Features, 'cacheHeldBytes' | 'cacheUnderPressureBytes'>> {
  const held = async (): Promise<number> => (await control.show(NAME)).cache?.actualBytes ?? 0;
  await control.setTarget(NAME, { cacheLimitBytes: LARGE_BYTES });
  await eventually(
    async () => (await held()) > LARGE_BYTES / 2,
    () => 'the page cache balloon grows',
    200,
  );
  const cacheHeldBytes = await held();
  await guest.hold(RAM_MIB - 160, 3, PATIENCE_MS);
  if ((await guest.verify(PATIENCE_MS)) !== 0) throw new Error('pages of the page cache balloon were lost');
  const cacheUnderPressureBytes = await held();
  await control.setTarget(NAME, { cacheLimitBytes: 0 });
  await guest.drop();
  return { cacheHeldBytes, cacheUnderPressureBytes };
}

async function tryLimit(
  daemon: DaemonProcess,
  control: ControlClient,
  cgroup: Cgroup,
): Promise<Pick<Features, 'highInflatedBytes' | 'highDeflatedBytes' | 'chargedBytes'>> {
  const high = (): number => cgroup.limits()?.highBytes ?? 0;
  await inflateTo(daemon, LARGE_BYTES);
  await control.setLimits(NAME, { high: 'follow' });
  await eventually(
    () => high() > 0 && high() < RAM_MIB * MIB,
    () => `memory.high falls from ${high()}`,
    200,
  );
  const highInflatedBytes = high();
  await inflateTo(daemon, 0);
  const highDeflatedBytes = high();
  const chargedBytes = cgroup.limits()?.currentBytes ?? 0;
  return { highInflatedBytes, highDeflatedBytes, chargedBytes };
}

const CAPABILITIES_AT = 0x34;
const MSIX = 0x11;

/** Finds the capability in the config space (PCI 3.0, 6.7 and 6.8.2); 0: there is none. */
function msixVectors(config: Buffer): number {
  for (let at = config[CAPABILITIES_AT] ?? 0; at >= 0x40 && at < 0xfe; at = config[at + 1] ?? 0) {
    if (config[at] === MSIX) return (config.readUInt16LE(at + 2) & 0x7ff) + 1;
  }
  return 0;
}

async function vectors(guest: Guest): Promise<Record<string, number>> {
  const each = 'echo $(cat $device/device) $(od -An -v -tx1 $device/config)';
  const { output } = await guest.sh(`for device in /sys/bus/pci/devices/*; do ${each}; done`);
  const found = output
    .trim()
    .split('\n')
    .map((line): [string, number] => {
      const [device = '', ...bytes] = line.split(' ');
      return [device, msixVectors(Buffer.from(bytes.join(''), 'hex'))];
    });
  return Object.fromEntries(found.filter(([, count]) => count > 0));
}

/** Moves the target to and fro until there is no more killing; returns how often. */
async function swing(control: ControlClient, over: AbortSignal): Promise<number> {
  let moves = 0;
  while (!over.aborted) {
    try {
      await control.setTarget(NAME, { balloonBytes: moves % 2 === 0 ? LARGE_BYTES : SMALL_BYTES });
      moves++;
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
    }
    await sleep(1000);
  }
  return moves;
}

async function work(guest: Guest, over: AbortSignal): Promise<number> {
  let lost = 0;
  for (let seed = 1; !over.aborted; seed += 1000) {
    lost += await guest.renew(10, seed, PATIENCE_MS);
    lost += await guest.churn(500, seed, PATIENCE_MS);
  }
  return lost;
}

async function trySwings(daemon: DaemonProcess, guest: Guest, control: ControlClient): Promise<Swings> {
  await guest.hold(HELD_MIB, 1, PATIENCE_MS);
  const over = new AbortController();
  const swinging = swing(control, over.signal);
  const working = work(guest, over.signal);
  const betweenMs = (Number(seconds) * 1000) / Math.max(1, Number(kills));
  let killed = 0;
  for (; killed < Number(kills); killed++) {
    await sleep(betweenMs * (0.5 + Math.random()));
    await daemon.crash();
    say(`killed ${killed + 1} times`);
  }
  over.abort();
  const [moves, lostPages] = await Promise.all([swinging, working]);
  await inflateTo(daemon, LARGE_BYTES);
  await inflateTo(daemon, 0);
  const lostInTheEnd = await guest.verify(PATIENCE_MS);
  const inflatedTotalBytes = Number((await control.show(NAME)).balloon.inflatedBytesTotal);
  return { moves, kills: killed, lostPages, lostInTheEnd, inflatedTotalBytes };
}

async function daemonRounds(daemon: DaemonProcess, guest: Guest): Promise<Rounds> {
  await guest.eat(LARGE_BYTES / MIB, PATIENCE_MS);
  const found = await rounds(
    (balloonBytes) => inflateUnasked(daemon, balloonBytes),
    () => costsNow(guest.pid, daemon.pid),
  );
  say(JSON.stringify(found));
  return found;
}

/** The guest has the kernel's own driver before, and ours afterwards. */
async function tryFigures(daemon: DaemonProcess, guest: Guest): Promise<NonNullable<KvmReport['figures']>> {
  const ours = await daemonRounds(daemon, guest);
  await guest.qmp('stop');
  const builtin = await builtinRounds();
  await guest.qmp('cont');
  await loadOurs(guest);
  return { ours, builtin, ourDriver: await daemonRounds(daemon, guest) };
}

async function loadOurs(guest: Guest): Promise<void> {
  await loadCacheModule(guest, (await buildCacheModule()) ?? '');
}

async function tryFeatures(
  daemon: DaemonProcess,
  guest: Guest,
  control: ControlClient,
  cgroup: Cgroup,
): Promise<Features> {
  // Nearly all that it has: our driver takes large pages, wherever they are free.
  await guest.eat(RAM_MIB - 112, PATIENCE_MS);
  const fullBytes = guest.memfdAllocatedBytes();
  await inflateTo(daemon, LARGE_BYTES);
  await daemon.until(NAME, ({ balloon }) => balloon.pendingBytes === 0, 'all is discarded');
  const inflatedBytes = guest.memfdAllocatedBytes();
  await inflateTo(daemon, 0);
  const limits = await tryLimit(daemon, control, cgroup);
  say(JSON.stringify(limits));
  const reporting = await tryReporting(guest);
  say(JSON.stringify(reporting));
  const cache = await tryCache(guest, control);
  return { fullBytes, inflatedBytes, ...reporting, ...limits, ...cache };
}

const daemon = await DaemonProcess.start({ program, supervise: true });
const control = new ControlClient(daemon.controlPath);
const guest = await Guest.boot({
  name: NAME,
  machine: MACHINES.kvm,
  memoryMib: RAM_MIB,
  acpi: true,
  sockets: [{ path: daemon.socketPath }],
});
const cgroup = new Cgroup(`/${NAME}`);
mkdirSync(cgroup.folder, { recursive: true });
writeFileSync('/sys/fs/cgroup/cgroup.subtree_control', '+memory');
writeFileSync(`${cgroup.folder}/cgroup.procs`, `${guest.pid}`);
await guest.waitReady(PATIENCE_MS);
await daemon.until(NAME, ({ state }) => state === 'running', 'it runs');
say('a guest under KVM runs');

/** A part that was asked for. */
async function part<T>(name: string, attempt: () => Promise<T>): Promise<T | null> {
  if (!parts.split(',').includes(name)) return null;
  const result = await attempt();
  say(`${name}: ${JSON.stringify(result)}`);
  return result;
}

const { enabled } = (await guest.qmp('query-kvm')) as { enabled: boolean };
// The kernel's own driver comes first.
const figures = await part('figures', () => tryFigures(daemon, guest));
if (figures === null) await loadOurs(guest);
const swings = await part('swings', () => trySwings(daemon, guest, control));
const features = await part('features', () => tryFeatures(daemon, guest, control, cgroup));
const report: KvmReport = {
  isKvm: enabled,
  kernel: readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim(),
  interrupts: (await guest.sh('grep virtio /proc/interrupts')).output,
  vectors: await vectors(guest),
  figures,
  features,
  swings,
  verdict: (await daemon.show(NAME)).verdict,
  faults: daemon.log
    .split('\n')
    .filter((line) => /resume-failed|hand-over-failed|vm-dropped|frontend-error|driver-error/.test(line)),
};
await guest.quit();
await daemon.stop();
process.stdout.write(JSON.stringify(report));
