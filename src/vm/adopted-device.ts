/**
 * QEMU's own balloon as a device of a VM: QEMU serves it, and the daemon moves it, over QMP or libvirt (kinds: what that cannot
 * do). The order of calls: the constructor, with what the VMM said at the first look; start() once the VM has the device; what
 * the VMM says while the connection lasts; closed(), once. adopted-balloon has its target and size, adopted-stats the
 * statistics of the guest.
 */
import {
  VmmError,
  type AdoptedVmm,
  type PeerAway,
  type VmmEnd,
  type VmmLook,
  type VmmObserver,
} from '../../protocol/adopted.js';
import type { BalloonView } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { BALLOON_PAGE_BYTES, BalloonFeature, STAT_NAMES } from '../../protocol/virtio/balloon.js';
import { featureMask } from '../../protocol/virtio/features.js';
import { ResidentMemory } from '../host/vmm-resident.js';
import type { Emit } from '../ops/event-log.js';
import { VmMeters } from '../ops/vm-meters.js';
import { monotonicNow, msSince, msUntilNext } from '../os/clock.js';
import type { AnyDevice } from './any-device.js';
import type { DeviceOwner } from './device-owner.js';
import { diagnose, type Diagnosis } from './diagnosis.js';
import type { DeviceFigures } from './figures.js';
import { KINDS, type AdoptedKind, type Part } from './kinds.js';
import type { DeviceUse } from './limits-plan.js';
import { inTurn } from './in-turn.js';
import { AdoptedBalloon } from './adopted-balloon.js';
import { AdoptedStats } from './adopted-stats.js';
import { AdoptedTrouble } from './adopted-trouble.js';
import { toldRam } from './ram.js';
import { StatsAsker } from './stats-asker.js';
import { TargetMover } from './target-mover.js';
import type { TargetBy } from './targets.js';

/** QEMU is looked at so often, and statistics of a driver that is waited for; VMs within a moment are looked at together. */
const LOOK_MS = 60_000;
const LOOK_SOON_MS = 1000;
const TOGETHER_MS = 250;
/** QEMU has so long to take the interval of statistics back. */
const LEAVE_MS = 500;
const OOM_BIT = featureMask(BalloonFeature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
const STATS_BIT = featureMask(BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ);

interface AdoptedIdentity {
  readonly kind: AdoptedKind;
  /** Null: the way to the VMM is no socket of its own. */
  readonly socketPath: string | null;
  readonly statsIntervalSeconds: number;
  /** The interval that the VMM was found with, in seconds; 0: none. */
  readonly foundInterval: number;
  /** Called when that interval is in force again. */
  readonly putBack: () => void;
  /** Called once, when the device is no more. */
  readonly closed: () => void;
}

export class AdoptedDevice implements AnyDevice, VmmObserver {
  readonly kind: AdoptedKind;
  readonly part: Part;
  readonly words: string;
  readonly meters = new VmMeters();
  readonly absence = null;
  /** The VMM does not tell. */
  readonly features = [];
  readonly sharedBytes = 0;
  readonly discardableBytes = 0;
  readonly discardingMs = 0;
  readonly within = null;
  onActual: (() => void) | null = null;
  readonly #owner: DeviceOwner<AnyDevice>;
  readonly #vmm: AdoptedVmm;
  readonly #identity: AdoptedIdentity;
  readonly #emit: Emit;
  readonly #balloon: AdoptedBalloon;
  readonly #stats: AdoptedStats;
  readonly #resident: ResidentMemory;
  readonly #asker: StatsAsker;
  #ramBytes: number;
  #vmRuns: boolean;
  #driverRuns: boolean;
  #connectedAt = monotonicNow();
  readonly #trouble: AdoptedTrouble;
  readonly #mover: TargetMover;
  #timer: NodeJS.Timeout | null = null;
  /** A look is under way; something happened since it began; the VM went on, and may have the target of a snapshot or of another host. */
  #looking = false;
  #lookAgain = false;
  #resumed = false;
  #closed = false;

  constructor(
    owner: DeviceOwner<AnyDevice>,
    vmm: AdoptedVmm,
    seen: VmmLook,
    identity: AdoptedIdentity,
    emit: Emit,
  ) {
    this.#owner = owner;
    this.#vmm = vmm;
    this.#identity = identity;
    this.kind = identity.kind;
    const { part, words, targetWords, peer } = KINDS[identity.kind];
    this.part = part;
    this.words = words;
    this.#emit = emit;
    this.#trouble = new AdoptedTrouble({ peer, pid: owner.pid, emit, goesOn: () => this.#goesOn() });
    this.#resident = new ResidentMemory(owner.pid);
    this.#ramBytes = seen.ramBytes;
    this.#vmRuns = seen.vmRuns;
    this.#balloon = new AdoptedBalloon(
      vmm,
      {
        actualChanged: (isThere) => this.#actualChanged(isThere),
        answered: () => this.#trouble.answered(),
        failed: (error) => this.failed(error),
      },
      seen,
    );
    this.#mover = new TargetMover({
      part,
      targetWords,
      balloon: this.#balloon,
      owner,
      emit,
      moved: () => undefined,
    });
    this.#driverRuns = this.#balloon.actualBytes > 0 || seen.stats.sentAtSeconds > 0;
    this.#stats = new AdoptedStats(vmm, identity.foundInterval, {
      received: () => this.#statsReceived(),
      answered: () => this.#trouble.answered(),
      failed: (error) => this.#failedBy(error),
    });
    this.#asker = new StatsAsker(this.#stats, identity.statsIntervalSeconds);
  }

  /** The VM has the device: orders follow. `seen`: as for the constructor. */
  start(seen: VmmLook): void {
    this.#vmm.listen(this);
    this.#askEvery(this.#asker.intervalSeconds);
    this.#stats.take(seen.stats);
    this.#owner.memoryTold();
    if (this.#state === 'running') this.#started();
    this.#lookLater();
  }

  get socketPath(): string | null {
    return this.#identity.socketPath;
  }

  get vmmBytes(): number {
    return this.#ramBytes;
  }

  get toldBytes(): number | null {
    const features = this.#vmm.deflatesOnOom ? OOM_BIT : 0n;
    return toldRam(this.#stats.values, features, this.#balloon.actualBytes / BALLOON_PAGE_BYTES);
  }

  /** The VMM's own memory counts as the guest's: the kernel tells them apart only by a walk through all of it. */
  get allocatedBytes(): number {
    return Math.min(this.#ramBytes, this.#resident.bytes);
  }

  get statsIntervalSeconds(): number {
    return this.#asker.intervalSeconds;
  }

  set statsIntervalSeconds(seconds: number) {
    const before = this.#asker.intervalSeconds;
    if (seconds === before) return;
    this.#asker.intervalSeconds = seconds;
    this.#askEvery(seconds);
    const often = seconds === 0 ? 'no longer' : `every ${seconds} s`;
    this.#emit('stats-interval-changed', `the guest is asked for statistics ${often}`, { before, seconds });
  }

  get figures(): DeviceFigures {
    const { targetBytes, actualBytes } = this.#balloon;
    const { values, receivedAt } = this.#stats;
    // Of a pool, in which QEMU discards whole huge pages by chance only.
    const pageBytes = this.#resident.poolPageBytes(this.#ramBytes);
    return {
      state: this.#state,
      targetBytes,
      actualBytes,
      actualUnknown: false,
      inhibited: this.#owner.inhibited,
      stats:
        values === null || receivedAt === null
          ? null
          : { values, ageSeconds: msSince(receivedAt) / 1000, receivedAt },
      pool: pageBytes === null ? null : { pageBytes, discards: false },
      sharesMemory: KINDS[this.kind].sharesMemory,
      slowness: KINDS[this.kind].slowness,
      deflatesOnOom: this.#vmm.deflatesOnOom,
    };
  }

  balloonView(): BalloonView {
    const { targetBytes, actualBytes } = this.#balloon;
    return {
      targetBytes,
      actualBytes,
      actualUnknown: false,
      // QEMU discards a page before it answers the guest.
      pendingBytes: 0,
      refilledBytes: null,
      pinnedBytes: null,
      discardedBytesTotal: null,
      inflatedBytesTotal: null,
      deflatedBytesTotal: null,
      reportedBytesTotal: null,
      discardSecondsTotal: null,
    };
  }

  guestUse(): DeviceUse {
    const { targetBytes, actualBytes } = this.#balloon;
    return {
      targetBytes,
      discardedBytes: actualBytes,
      // QEMU does not offer that to drivers.
      tellsFirst: false,
      sharesMemory: KINDS[this.kind].sharesMemory,
    };
  }

  get diagnosis(): Diagnosis | null {
    const { actualBytes, targetBytes, progress, passedBytes } = this.#balloon;
    const { limits, sizes, ramBytes, pinnedBy } = this.#owner;
    return diagnose({
      problem: this.#trouble.diagnosis ?? limits.problem(),
      state: this.#state,
      driver: KINDS[this.kind].driver,
      obstacle: () => null,
      connectedMs: this.#vmRuns ? msSince(this.#connectedAt) : 0,
      stillMs: progress.stillMs,
      ramBytes,
      toldBytes: this.toldBytes,
      leastBytes: sizes.leastBytes,
      // QEMU discards memory of any kind but that of a pool, of which nothing is known here.
      discardableBytes: null,
      targetBytes,
      actualBytes,
      actualUnknown: false,
      heldBytes: actualBytes,
      tookBackBytes: progress.tookBackBytes,
      awayMs: progress.awayMs,
      overshotBytes: progress.overshotBytes,
      toLeave: KINDS[this.kind].leave,
      deflatesOnOom: this.#vmm.deflatesOnOom,
      guestFreeBytes: this.#stats.values?.get(STAT_NAMES[4]) ?? null,
      answered: progress.answered(passedBytes),
      statsAgeMs: this.#asker.ageMs(STATS_BIT),
      statsIntervalMs: this.#asker.intervalSeconds * 1000,
      throttled: this.#vmm.isThrottled,
      pinnedBy,
      absence: null,
      unknownQueues: [],
      silentRings: false,
    });
  }

  setTarget(bytes: number, by: TargetBy): void {
    this.#mover.setTarget(bytes, by);
  }

  setSize(bytes: number, why: string): void {
    this.#mover.setSize(bytes, why);
  }

  remind(): void {
    if (this.#balloon.targetBytes !== this.#balloon.actualBytes) this.#balloon.remind();
  }

  /** An operator who gives such an order is refused (kinds). */
  setInhibited(): Promise<void> {
    return Promise.resolve();
  }

  refreshStats(timeoutMs: number): Promise<boolean> {
    return this.#stats.refresh(timeoutMs);
  }

  /** QEMU knows all that the next daemon asks for. */
  save(): void {
    return;
  }

  close(): void {
    void this.leave();
  }

  /** Has the VMM ask for statistics as before, and lets go of the VM, whose balloon stays as it is. */
  async leave(): Promise<void> {
    const late = new Promise<void>((resolve) => setTimeout(resolve, LEAVE_MS).unref());
    await Promise.race([this.#stats.leave().then(this.#identity.putBack, () => undefined), late]);
    this.#vmm.close();
  }

  sized(guestBytes: number): void {
    this.#balloon.sees(guestBytes, true);
  }

  reset(): void {
    this.#connectedAt = monotonicNow();
    this.#stats.clear();
    this.#balloon.reset();
    this.#setState(this.#vmRuns, false);
    this.#lookLater();
  }

  changed(resumed = false): void {
    this.#resumed ||= resumed;
    if (this.#looking) this.#lookAgain = true;
    else void this.#look();
  }

  throttled(): void {
    const { overWords, peer } = KINDS[this.kind];
    const busy = `${peer} sends so much over ${overWords} that the daemon reads it later than others`;
    this.#emit('vm-throttled', busy);
  }

  failed(error: VmmError): void {
    if (!this.#closed) this.#trouble.failed(error);
  }

  peerAway(says: PeerAway | null): void {
    if (!this.#closed) this.#trouble.peerAway(says);
  }

  closed({ why, fault }: VmmEnd): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#asker.close();
    this.#balloon.close();
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (fault !== null) {
      this.meters.errors.frontend++;
      this.#emit('qmp-failed', fault);
    }
    this.#emit('vm-disconnected', why);
    this.#owner.closed(this);
    this.#identity.closed();
  }

  get #state(): DeviceFigures['state'] {
    if (!this.#driverRuns) return 'connected';
    return this.#vmRuns ? 'running' : 'stopped';
  }

  #actualChanged(isThere: boolean): void {
    const { actualBytes, targetBytes } = this.#balloon;
    // A driver that moves pages runs.
    this.#setState(this.#vmRuns, true);
    if (actualBytes < targetBytes) this.#owner.allow('deflated');
    this.#owner.settle();
    this.onActual?.();
    if (!isThere || this.#mover.follows) return;
    this.#emit('target-reached', `the ${this.words} holds ${formatSize(actualBytes)}`, { actualBytes });
  }

  #statsReceived(): void {
    this.#emit('stats-received', 'the guest sent statistics');
    // A driver sends statistics as it starts.
    this.#setState(this.#vmRuns, true);
    this.#owner.memoryTold();
  }

  #setState(vmRuns: boolean, driverRuns: boolean): void {
    const before = this.#state;
    this.#vmRuns = vmRuns;
    this.#driverRuns = driverRuns;
    const now = this.#state;
    if (now === before) return;
    this.#owner.allow(now);
    if (now === 'running') this.#started();
    else if (before === 'running') {
      const why = `the guest driver of the ${this.words} stopped`;
      this.#emit('vm-stopped', now === 'stopped' ? 'the VM was paused, or its guest sleeps' : why);
    }
  }

  #started(): void {
    this.#asker.restart();
    this.#owner.driverStarted(this);
    this.#emit('vm-ready', `the guest driver of the ${this.words} runs`, {
      targetBytes: this.#balloon.targetBytes,
    });
  }

  #askEvery(seconds: number): void {
    this.#stats.every(seconds).catch((error: unknown) => this.#failedBy(error));
  }

  #lookLater(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#closed) return;
    const waits = this.#state === 'connected' && this.#vmRuns;
    const ms = (waits ? LOOK_SOON_MS : LOOK_MS) + msUntilNext(TOGETHER_MS);
    this.#timer = setTimeout(() => inTurn(() => void this.#look(waits)), ms).unref();
  }

  async #look(forDriver = false): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      if (forDriver) this.#stats.request();
      else this.#take(await this.#vmm.look());
    } catch (error) {
      this.#failedBy(error);
    }
    this.#looking = false;
    if (!this.#lookAgain) return this.#lookLater();
    this.#lookAgain = false;
    void this.#look();
  }

  #take({ ramBytes, guestBytes, vmRuns, stats }: VmmLook): void {
    if (this.#closed) return;
    this.#trouble.answered();
    if (ramBytes !== this.#ramBytes) {
      this.#ramBytes = ramBytes;
      this.#balloon.resize(ramBytes);
      this.#owner.memoryTold();
    }
    this.#balloon.sees(guestBytes, false);
    if (vmRuns && (this.#resumed || !this.#vmRuns)) this.#balloon.remind();
    this.#resumed &&= !vmRuns;
    this.#setState(vmRuns, this.#driverRuns);
    this.#stats.take(stats);
  }

  /** Patience with the guest begins anew. */
  #goesOn(): void {
    this.#asker.restart();
    this.#balloon.goOn();
    this.#askEvery(this.#asker.intervalSeconds);
    void this.#look();
  }

  #failedBy(error: unknown): void {
    if (!(error instanceof VmmError)) throw error;
    this.failed(error);
  }
}
