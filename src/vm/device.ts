/**
 * One device of a VM: the connection that its VMM made, the session in it, and the balloon that is served. A device knows
 * no operator: its Vm says what may be discarded and what its target is. The order of calls: the constructor; resume()
 * where a daemon before served it; what the observers say while it lives; closed(), once.
 */
import type { BalloonView, VmView } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import type { FeatureBits } from '../../protocol/virtio/features.js';
import type { RegionDescription } from '../../protocol/vhost-user/payloads.js';
import type { BalloonObserver } from '../balloon/observer.js';
import { mapsPrivately, obstacleOf } from '../host/peer.js';
import { FrontendError } from '../memory/errors.js';
import type { GuestRegion } from '../memory/region.js';
import type { Emit } from '../ops/event-log.js';
import { VmMeters } from '../ops/vm-meters.js';
import { monotonicNow, toBoot, toWall } from '../os/clock.js';
import { SystemError } from '../os/errors.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { Session, type SessionObserver, type SessionState } from '../vhost-user/session.js';
import { Absence } from './absence.js';
import type { AnyDevice } from './any-device.js';
import { CacheWithin } from './cache-within.js';
import type { DeviceHandOver, DeviceIdentity, DeviceOwner } from './device-owner.js';
import { diagnose, sentence, type Diagnosis } from './diagnosis.js';
import { FeatureNames } from './feature-names.js';
import type { DeviceFigures } from './figures.js';
import { HugePageWatch } from './huge-page-watch.js';
import { DEVICE_KINDS, KINDS, offeredBits, type AnyBalloon, type ServedKind } from './kinds.js';
import type { DeviceUse } from './limits-plan.js';
import { encodeVmRecord, momentOf, type VmRecord } from './record.js';
import * as views from './served-device.js';
import { TargetMover } from './target-mover.js';
import type { TargetBy } from './targets.js';
import { StatsAsker } from './stats-asker.js';
import { Progress } from './progress.js';
import { DeviceSymptoms } from './symptoms.js';
import { errorWords, refusalEvent, Troubles } from './troubles.js';

export class VmDevice implements AnyDevice, SessionObserver, BalloonObserver {
  readonly meters = new VmMeters();
  readonly absence: Absence | null;
  readonly hugePages: HugePageWatch;
  readonly kind: (typeof DEVICE_KINDS)[number];
  readonly #kind: ServedKind;
  readonly #owner: DeviceOwner<VmDevice>;
  readonly #identity: DeviceIdentity;
  readonly #keeper: FdKeeper;
  readonly #fd: number;
  readonly #emit: Emit;
  readonly #session: Session;
  readonly #served: views.ServedDevice;
  readonly #troubles = new Troubles();
  readonly #symptoms: DeviceSymptoms;
  #balloon!: AnyBalloon;
  readonly #asker: StatsAsker;
  readonly #progress = new Progress();
  #within: CacheWithin | null = null;
  /** Called when the guest says another size of its balloon. */
  onActual: (() => void) | null = null;
  /** The target follows the working set: it moves too often to tell of each move. */
  readonly #mover: TargetMover;
  #outsideReported = false;
  #resuming = false;
  #ended = false;
  readonly #featureNames = new FeatureNames();

  /**
   * Owns the connected socket `fd` and the state file. One that was found waits for resume(); throws StateError or
   * SystemError when it cannot be gone on with.
   */
  constructor(
    fd: number,
    owner: DeviceOwner<VmDevice>,
    identity: DeviceIdentity,
    { keeper, state, found, ...shared }: DeviceHandOver,
    emit: Emit,
  ) {
    const { options } = identity;
    this.kind = options.kind;
    this.#kind = KINDS[options.kind];
    this.#owner = owner;
    this.#identity = identity;
    this.#keeper = keeper;
    this.#fd = fd;
    this.#emit = emit;
    this.hugePages = new HugePageWatch(emit);
    this.#session = new Session(
      fd,
      this,
      (memory, host) => {
        const { features, discardDelaySeconds, discardsUntold } = options;
        const discards = { delayMs: discardDelaySeconds * 1000, discardsUntold };
        const parts = { memory, host, observer: this, offered: offeredBits(features), discards };
        return (this.#balloon = this.#kind.make(parts));
      },
      { ...shared, state, keeper, found: found?.session ?? null, pid: owner.pid },
    );
    this.#served = { balloon: this.#balloon, session: this.#session, part: this.#kind.part };
    this.#mover = new TargetMover({
      part: this.#kind.part,
      targetWords: this.#kind.targetWords,
      balloon: this.#balloon,
      owner,
      emit,
      moved: () => this.#beginProgress(),
    });
    this.#asker = new StatsAsker(this.#balloon.stats, options.statsIntervalSeconds);
    this.absence = Absence.of(this.#balloon.absentPages, emit);
    this.#symptoms = new DeviceSymptoms(
      {
        served: this.#served,
        kind: options.kind,
        owner,
        troubles: this.#troubles,
        hugePages: this.hugePages,
        absence: this.absence,
        progress: this.#progress,
        asker: this.#asker,
        obstacle: obstacleOf(owner.pid),
      },
      found === null ? monotonicNow() : momentOf(found.connectedBootMs, found.connectedAt),
    );
    if (found !== null) this.#restore(found);
  }

  /** Goes on where the daemon before this one ended. */
  resume(): void {
    this.#resuming = true;
    try {
      this.#session.resume();
    } finally {
      this.#resuming = false;
    }
    const { targetBytes, heldBytes: actualBytes } = this.#balloon;
    this.#emit('vm-resumed', 'the VM is served again, from where the daemon before this one ended', {
      state: this.#session.state,
      targetBytes,
      actualBytes,
    });
  }

  record(): string {
    const { socketPath: socket, options } = this.#identity;
    return encodeVmRecord({
      name: this.#owner.name,
      pid: this.#owner.pid,
      socket,
      ...(options.kind === DEVICE_KINDS[0] ? {} : { device: options.kind }),
      features: [...options.features],
      ...this.#owner.words(),
      connectedAt: toWall(this.#symptoms.connectedAt),
      connectedBootMs: toBoot(this.#symptoms.connectedAt),
      ...this.#troubles.record(),
      stats: this.#asker.record(),
      connection: this.#keeper.nameOf(this.#fd) ?? '-',
      session: this.#session.record(),
    });
  }

  /** Writes record() down. */
  save(): void {
    if (!this.#ended) this.#session.save();
  }

  get socketPath(): string | null {
    return this.#identity.socketPath;
  }

  get part(): AnyDevice['part'] {
    return this.#kind.part;
  }

  /** The name of the device in messages. A VM may have one of each kind. */
  get words(): string {
    return this.#kind.words;
  }

  get features(): readonly string[] {
    return this.#featureNames.of(this.#session.features);
  }

  get statsIntervalSeconds(): number {
    return this.#asker.intervalSeconds;
  }

  /** 0: the guest is not asked any more. */
  set statsIntervalSeconds(seconds: number) {
    const before = this.#asker.intervalSeconds;
    if (seconds === before) return;
    this.#asker.intervalSeconds = seconds;
    const often = seconds === 0 ? 'no longer' : `every ${seconds} s`;
    this.#emit('stats-interval-changed', `the guest is asked for statistics ${often}`, { before, seconds });
  }

  get within(): AnyDevice | null {
    const { cache } = this.#balloon;
    return cache && (this.#within ??= new CacheWithin(this, cache, this.#owner, this.#emit));
  }

  get queuesLacking(): VmView['queuesLacking'] {
    return views.queuesLacking(this.#session);
  }

  /** How long the discard that is under way has been, in milliseconds; 0 when there is none. */
  get discardingMs(): number {
    return this.#balloon.discardingMs;
  }

  /** The memory that the files of guest memory take up on the host now. */
  get allocatedBytes(): number {
    return this.#session.memory.allocatedBytes;
  }

  /** The regions that the VMM shares, in bytes; 0 until it shares any. */
  get sharedBytes(): number {
    return this.#session.memory.sizeBytes;
  }

  /** The part of them that can go back to the host. */
  get discardableBytes(): number {
    return this.#session.memory.discardableBytes;
  }

  /** The memory that the guest says it has, in bytes, its balloon included; null: it has not said. */
  get toldBytes(): number | null {
    return views.toldBytes(this.#served);
  }

  /** The part of a view that costs little. */
  get figures(): DeviceFigures {
    return views.deviceFigures(this.#served);
  }

  /** The device in the control API. */
  balloonView(): BalloonView {
    return views.deviceView(this.#served);
  }

  guestUse(): DeviceUse {
    return views.deviceUse(this.#served);
  }

  /** What is wrong with the device or with the limits of its VM; null: nothing. */
  get diagnosis(): Diagnosis | null {
    return diagnose(this.#symptoms);
  }

  setTarget(bytes: number, by: TargetBy): void {
    this.#mover.setTarget(bytes, by);
  }

  /** The policy has the target follow the working set of the guest; `why` is the end of a sentence. */
  setSize(bytes: number, why: string): void {
    this.#mover.setSize(bytes, why);
  }

  /** Tells the guest of a target again that it gave up on; one that it is known to have reached needs no word. */
  remind(): void {
    const { targetBytes, actualBytes, actualUnknown } = this.#balloon;
    if (this.#session.state !== 'running' || (!actualUnknown && targetBytes === actualBytes)) return;
    this.#balloon.remind();
    this.#beginProgress();
  }

  /** Resolves when it is in effect, and no discard under way if it is to stop them. */
  setInhibited(reason: string | null): Promise<void> {
    return this.#balloon.setInhibited(reason);
  }

  refreshStats(timeoutMs: number): Promise<boolean> {
    return this.#balloon.stats.refresh(timeoutMs);
  }

  close(): void {
    this.#session.close();
  }

  /** So many milliseconds of the event loop went into serving it at all. */
  charge(ms: number): void {
    this.#session.seat.charge(ms);
  }

  inspectRegion({ gpa, userAddr }: RegionDescription): string | null {
    if (mapsPrivately(this.#owner.pid, userAddr) !== true) return null;
    const reason =
      'the VMM maps guest memory privately: add share=on to its memory backend and restart the VM';
    this.#privateMemory(reason, { gpa: `0x${gpa.toString(16)}` });
    return reason;
  }

  memoryRefused(error: Error, gpa: bigint | null): void {
    this.#troubles.memoryRefused(error, gpa);
  }

  memoryChanged(gpa: bigint | null): void {
    this.#troubles.memoryTaken(gpa);
    const { regions, sizeBytes } = this.#session.memory;
    this.#emit('memory-mapped', `${formatSize(sizeBytes)} of guest memory, regions: ${regions.length}`, {
      regions: regions.length,
      bytes: sizeBytes,
      backingPageBytes: Math.max(0, ...regions.map((region) => region.file.pageBytes)),
    });
    this.#owner.memoryChanged();
  }

  featuresAcked(bits: FeatureBits): void {
    const acked = `the guest driver of the ${this.words} acked its features`;
    this.#emit('features-negotiated', acked, { features: this.#featureNames.of(bits) });
  }

  stateChanged(state: SessionState): void {
    if (!this.#resuming) this.#owner.allow(state);
    if (state === 'connected') this.#symptoms.connectedAt = monotonicNow();
    if (state !== 'running') {
      this.#troubles.forget();
      const why = `the guest driver stopped or reset the ${this.words}, the VM was paused, or its guest sleeps`;
      if (state === 'stopped' && this.#session.intact()) this.#emit('vm-stopped', why);
      return;
    }
    this.#asker.restart();
    if (this.#resuming) return;
    this.#outsideReported = false;
    this.#owner.driverStarted(this);
    const { targetBytes, actualUnknown } = this.#balloon;
    this.#beginProgress();
    const since = actualUnknown ? ' since before the VMM connected, and has yet to say what it holds' : '';
    this.#emit('vm-ready', `the guest driver of the ${this.words} runs${since}`, { targetBytes });
  }

  kickAcked(ms: number): void {
    this.meters.kickToAck.observe(ms / 1000);
  }

  requestRefused(request: string, error: Error): void {
    this.meters.errors.frontend++;
    this.#emit(refusalEvent(error), errorWords(error), { request });
  }

  ringFailed(index: number, error: Error): void {
    this.meters.errors[error instanceof FrontendError ? 'frontend' : 'driver']++;
    if (error instanceof FrontendError) {
      this.#privateMemory(error.message, { ring: index });
      return;
    }
    this.#emit('driver-error', sentence(this.#troubles.ringStopped(index, error)), { ring: index });
  }

  throttled(): void {
    this.#emit('vm-throttled', 'the VM keeps the event loop busy, so other VMs go first', {
      tookMsPerSecond: Math.round(this.#session.seat.taken()),
    });
  }

  memoryLost(region: GuestRegion): void {
    const gpa = `0x${region.gpa.toString(16)}`;
    this.#emit('memory-lost', sentence(this.#troubles.lostMemory(region)), { gpa });
  }

  queuesSettled(present: number): void {
    const { leastQueues, queueCount: needed } = this.#session.device;
    const tooFew = this.#troubles.queues(this.words, present < leastQueues ? present : null, needed);
    if (tooFew !== null) this.#emit('too-few-queues', sentence(tooFew), { present, needed });
  }

  configChangeSent(): void {
    this.#emit('config-change-sent', 'the VMM was told of a new target');
  }

  unplugged(): void {
    this.#emit('device-unplugged', `the VMM took the ${this.words} out of the VM and kept its connection`);
  }

  closed(error: Error | null): void {
    this.#ended = true;
    this.#asker.close();
    if (error !== null) this.meters.errors[error instanceof SystemError ? 'system' : 'frontend']++;
    if (error === null) this.#emit('vm-disconnected', `the VMM closed the connection of its ${this.words}`);
    else this.#emit('vm-dropped', errorWords(error));
    this.#owner.closed(this);
  }

  actualChanged(): void {
    const { actualBytes, actualUnknown } = this.#balloon;
    const isThere = !actualUnknown && this.#progress.move(actualBytes);
    this.onActual?.();
    if (!isThere || this.#mover.follows) return;
    this.#emit('target-reached', `the ${this.words} holds ${formatSize(actualBytes)}`, { actualBytes });
  }

  tookBack(): void {
    this.#owner.allow('deflated');
  }

  statsReceived(): void {
    this.#emit('stats-received', 'the guest sent statistics');
    this.#session.changed();
    this.#owner.memoryTold();
  }

  pagesOutside(count: number): void {
    if (this.#outsideReported) return;
    this.#outsideReported = true;
    this.#emit('pfn-outside-memory', `${count} pages are in no memory that can go back to the host`, {
      pages: count,
    });
  }

  discardsTried(error: SystemError | null, failedRanges: number, seconds: number): void {
    this.meters.discards.observe(seconds);
    this.meters.errors.system += failedRanges;
    if (error === null) {
      if (this.#session.memory.pendingPages === 0) this.#troubles.discarded();
      this.#owner.settle();
      return;
    }
    const { code, syscall, message } = error;
    if (code === 'ENXIO') this.#session.memory.findLost();
    if (!this.#session.intact()) return;
    if (this.#troubles.discardsFailed(error, failedRanges)) {
      this.#emit('discard-failed', message, { code, syscall, ranges: failedRanges });
    }
  }

  poisonActive(poisonVal: number): void {
    const kept = 'reported pages are kept: the guest relies on their poison';
    this.#emit('page-poison-active', kept, { poisonVal });
  }

  #restore(found: VmRecord): void {
    this.#troubles.restore(found);
    this.#asker.restore(found.stats);
    this.#beginProgress(0);
  }

  #beginProgress(passedBytes = this.#passedBytes): void {
    const { targetBytes, actualBytes, actualUnknown } = this.#balloon;
    this.#progress.begin(targetBytes, actualUnknown ? null : actualBytes, passedBytes);
  }

  #privateMemory(reason: string, fields: Record<string, unknown>): void {
    if (this.#troubles.privateMemory(reason)) this.#emit('private-memory', reason, fields);
  }

  /** The bytes that went in or out of the balloon so far. */
  get #passedBytes(): number {
    return this.#balloon.totals.inflated + this.#balloon.totals.deflated;
  }
}
