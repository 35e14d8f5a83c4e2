import type { VmView } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { BalloonFeature, STAT_NAMES } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature } from '../../protocol/virtio/cache-balloon.js';
import { featureNames, hasFeature, VirtioFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { VhostFeature } from '../../protocol/vhost-user/requests.js';
import { Balloon, type BalloonObserver } from '../balloon/balloon.js';
import { CacheBalloon } from '../balloon/cache-balloon.js';
import { HOST_PATHS, type HostPaths } from '../host/host-paths.js';
import { mapsPrivately } from '../host/peer.js';
import type { Pressure } from '../host/pressure.js';
import { findPinning, NOT_PINNED, openFileCount, searchPinning, type PinSearch } from '../host/pinned.js';
import { FrontendError } from '../memory/errors.js';
import { PAGE_BYTES, type GuestRegion } from '../memory/region.js';
import type { Emit } from '../ops/event-log.js';
import { VmMeters } from '../ops/vm-meters.js';
import { monotonicNow, msSince, msUntilNext, toBoot, toWall, type Monotonic } from '../os/clock.js';
import { SystemError } from '../os/errors.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import type { StateFile } from '../memory/state-file.js';
import { Session, type SessionObserver, type SessionState } from '../vhost-user/session.js';
import type { Turns } from '../vhost-user/turns.js';
import type { RegionDescription } from '../../protocol/vhost-user/payloads.js';
import { VmLimits } from './limits.js';
import type { GuestUse } from './limit-plan.js';
import { offeredBits, type DeviceKind, type DeviceOptions } from './settings.js';
import { MAX_REASON } from '../vhost-user/session-record.js';
import { encodeVmRecord, momentOf, type ForcedFrom, type VmRecord } from './vm-record.js';
import type { Look } from './pin-watch.js';
import type { DeviceFigures } from '../governor/governed-vm.js';
import { verdict } from './verdict.js';

/** A target that cannot be: the message says why and what to do. */
export class TargetError extends Error {
  override readonly name = 'TargetError';
}

/** What an operator asks a guest to keep, or to give up, in bytes. */
export type Target = { memoryBytes: number } | { balloonBytes: number };

/** The VMM's open files are looked at that often, even when their number stays the same. */
const PIN_LOOK_MS = 60_000;
/** Parts of such a look. */
const PIN_PART_MS = 1;

/** VMs that are asked for statistics within that time are asked together. */
const STATS_BEGIN_MS = 250;

/** Who the VM is, and what it is served with. */
export interface VmIdentity {
  name: string;
  pid: number;
  /** Path of the socket that it connected to, where the configuration has something for it. */
  socketPath: string | null;
  options: DeviceOptions;
}

/** Where it is written down, and what a daemon before this one wrote. */
export interface VmHandOver {
  keeper: FdKeeper;
  state: StateFile;
  found: VmRecord | null;
  /** Those it shares the event loop with, if not all of the process. */
  turns?: Turns;
  /** Where the kernel's files are, if not where they always are. */
  paths?: HostPaths;
}

/**
 * One VM as operators know it: the session its VMM opened, the balloon served in it, and what was asked of it.
 * The target is the operator's: it outlives guest reboots, and a target for the guest's memory that was set
 * before its size was known is kept until it is.
 */
export class Vm implements SessionObserver, BalloonObserver {
  readonly name: string;
  readonly pid: number;
  readonly meters = new VmMeters();
  /** Of its cgroup. */
  readonly limits: VmLimits;
  readonly #proc: string;
  readonly #identity: VmIdentity;
  readonly #keeper: FdKeeper;
  readonly #fd: number;
  readonly #emit: Emit;
  readonly #session: Session;
  readonly #onClosed: () => void;
  #statsTimer: NodeJS.Timeout | null = null;
  readonly #connectedAt: Monotonic;
  #balloon!: Balloon | CacheBalloon;
  #wantedMemoryBytes: number | null = null;
  #manual = false;
  #forcedFrom: ForcedFrom | null = null;
  #ramBytes = 0;
  #problem: string | null = null;
  #reached = true;
  #movedAt = monotonicNow();
  #startedAt = monotonicNow();
  #statsIntervalSeconds: number;
  /** Bytes that went in or out of the balloon until the target was set. */
  #movedBytes = 0;
  #memoryLost: string | null = null;
  #outsideReported = false;
  #discardError: SystemError | null = null;
  #failedRanges = 0;
  #resuming = false;
  /** Why nothing is discarded: what the operator said, and the file that pins guest memory. Each is enough. */
  #operatorInhibits: string | null = null;
  #pinnedBy: string | null = null;
  #pinLookedAt = -Infinity;
  #pinSearch: ReturnType<typeof searchPinning> | null = null;
  #openFiles: number | null = null;
  #pinUnknown = false;
  #tooFewQueues: string | null = null;
  #ended = false;
  #named: { bits: FeatureBits; names: string[] } | null = null;

  /**
   * Owns the connected socket `fd` and the state file. One that was found waits for resume(); throws StateError or
   * SystemError when it cannot be gone on with.
   */
  constructor(
    fd: number,
    identity: VmIdentity,
    { keeper, state, found, paths = HOST_PATHS, ...shared }: VmHandOver,
    emit: Emit,
    onClosed: () => void,
  ) {
    const { name, pid, options } = identity;
    this.name = name;
    this.pid = pid;
    this.#proc = paths.proc;
    this.#identity = identity;
    this.#statsIntervalSeconds = options.statsIntervalSeconds;
    this.#keeper = keeper;
    this.#fd = fd;
    this.#onClosed = onClosed;
    this.#emit = (event, message, fields) => emit(event, message, fields, name);
    this.#connectedAt = found === null ? monotonicNow() : momentOf(found.connectedBootMs, found.connectedAt);
    this.limits = new VmLimits(
      {
        pid,
        shared: options.sharedCgroup,
        emit: this.#emit,
        use: () => this.#guestUse(),
        save: () => {
          if (!this.#ended) this.#session.save();
        },
        paths,
      },
      found?.limits ?? null,
    );
    this.#session = new Session(
      fd,
      this,
      (memory, host) => {
        const delayMs = options.discardDelaySeconds * 1000;
        const offered = offeredBits(options.features);
        this.#balloon =
          options.kind === 'cache-balloon'
            ? new CacheBalloon(memory, host, this, offered)
            : new Balloon(memory, host, this, offered, delayMs);
        return this.#balloon;
      },
      { ...shared, state, keeper, found: found?.session ?? null, pid: identity.pid },
    );
    this.#askForStats();
    if (found === null) this.#session.save();
    else this.#restore(found);
  }

  /** Begins when others do, so that the daemon is woken once for many of them. */
  #askForStats(): void {
    clearTimeout(this.#statsTimer ?? undefined);
    this.#statsTimer = null;
    const periodMs = this.#statsIntervalSeconds * 1000;
    if (periodMs === 0) return;
    const ask = (): void => this.#balloon.stats.request();
    const first = (): void => {
      ask();
      this.#statsTimer = setInterval(ask, periodMs).unref();
    };
    this.#statsTimer = setTimeout(first, periodMs + msUntilNext(STATS_BEGIN_MS)).unref();
  }

  /** Goes on where the daemon before this one ended. */
  resume(): void {
    this.#resuming = true;
    // Before a ring is served: a guest may wait for an answer to its deflate.
    this.limits.resume();
    try {
      this.#session.resume();
    } finally {
      this.#resuming = false;
    }
    this.limits.check();
    // The policy of this daemon begins anew.
    if (this.#forcedFrom !== null) void this.force(null, null).catch(() => undefined);
    const { targetBytes, actualBytes } = this.#balloon;
    this.#emit('vm-resumed', 'the VM is served again, from where the daemon before this one ended', {
      state: this.#session.state,
      targetBytes,
      actualBytes,
    });
  }

  record(): string {
    const { name, pid, socketPath, options } = this.#identity;
    return encodeVmRecord({
      name,
      pid,
      socket: socketPath,
      ...(options.kind === 'balloon' ? {} : { device: options.kind }),
      features: [...options.features],
      inhibited: this.#operatorInhibits,
      manual: this.#manual,
      forcedFrom: this.#forcedFrom,
      wantedMemoryBytes: this.#wantedMemoryBytes,
      connectedAt: toWall(this.#connectedAt),
      connectedBootMs: toBoot(this.#connectedAt),
      problem: this.#problem?.slice(0, MAX_REASON) ?? null,
      stats: this.#statsRecord(),
      connection: this.#keeper.nameOf(this.#fd) ?? '-',
      limits: this.limits.record(),
      session: this.#session.record(),
    });
  }

  get socketPath(): string | null {
    return this.#identity.socketPath;
  }

  get statsIntervalSeconds(): number {
    return this.#statsIntervalSeconds;
  }

  /** 0: the guest is not asked any more. */
  set statsIntervalSeconds(seconds: number) {
    if (seconds === this.#statsIntervalSeconds) return;
    const before = this.#statsIntervalSeconds;
    this.#statsIntervalSeconds = seconds;
    // None are missing yet.
    this.#startedAt = monotonicNow();
    this.#askForStats();
    const often = seconds === 0 ? 'no longer' : `every ${seconds} s`;
    this.#emit('stats-interval-changed', `the guest is asked for statistics ${often}`, { before, seconds });
  }

  get kind(): DeviceKind {
    return this.#identity.options.kind;
  }

  /** What people call it. A VM may have one of each kind. */
  get device(): string {
    return this.kind === 'balloon' ? 'balloon' : 'page cache balloon';
  }

  /** How long the discard that is under way has been, in milliseconds; 0 when there is none. */
  get discardingMs(): number {
    return this.#balloon.discardingMs;
  }

  /** What the files of guest memory take up on the host now. */
  get allocatedBytes(): number {
    return this.#session.memory.allocatedBytes;
  }

  get pressure(): Pressure | null {
    return this.limits.pressure();
  }

  /** Of the guest, the balloon included. */
  get ramBytes(): number {
    return this.#ramBytes;
  }

  /** A part of view() that costs little. */
  get figures(): DeviceFigures {
    const { targetBytes, actualBytes, inhibited } = this.#balloon;
    const { values, receivedAt } = this.#balloon.stats;
    const { state } = this.#session;
    const stats =
      values === null || receivedAt === null
        ? null
        : { values, ageSeconds: msSince(receivedAt) / 1000, receivedAt };
    return { state, targetBytes, actualBytes, inhibited, stats };
  }

  /** With what is known of its one device as `balloon`, whichever it is. */
  view(): VmView {
    const { memory, features } = this.#session;
    const balloon = this.#balloon;
    const { state, targetBytes, actualBytes, inhibited, stats } = this.figures;
    return {
      name: this.name,
      pid: this.pid,
      state,
      ramBytes: this.ramBytes,
      balloon: {
        targetBytes,
        actualBytes,
        pendingBytes: state === 'running' ? memory.pendingPages * PAGE_BYTES : 0,
        discardedBytesTotal: balloon.totals.discarded,
        inflatedBytesTotal: balloon.totals.inflated,
        deflatedBytesTotal: balloon.totals.deflated,
        reportedBytesTotal: balloon.totals.reported,
        discardSecondsTotal: balloon.totals.discardSeconds,
      },
      cache: null,
      inhibited,
      verdict: this.#verdict(),
      features: this.#featureNames(features),
      stats: stats && { ageSeconds: stats.ageSeconds, ...Object.fromEntries(stats.values) },
      cgroup: this.limits.view(),
      limits: this.limits.limitsView(),
      policy: null,
      statsIntervalSeconds: this.#statsIntervalSeconds,
    };
  }

  /** Whether an operator set its target, or paused the policy for it. */
  get manual(): boolean {
    return this.#manual;
  }

  set manual(manual: boolean) {
    if (manual === this.#manual) return;
    this.#manual = manual;
    this.#session.save();
  }

  get limitable(): boolean {
    return this.limits.writable;
  }

  /** The policy's word. Never beyond what there is. */
  setPolicyTarget(balloonBytes: number): void {
    this.#apply(Math.min(balloonBytes, this.#ramBytes), 'policy');
  }

  /** The policy's word: holds its cgroup to these; null: to what held before. Rejects with LimitError. */
  async force(highBytes: number | null, maxBytes: number | null): Promise<void> {
    if (this.#forcedFrom === null) {
      if (highBytes === null) return;
      const { high, max } = this.limits.limitsView();
      this.#forcedFrom = { high, max };
      this.#session.save();
    }
    const { high, max } = this.#forcedFrom;
    const over = highBytes === null && maxBytes === null;
    if (over) this.#forcedFrom = null;
    await this.limits.request(
      { high: highBytes ?? high ?? 'restore', max: maxBytes ?? max ?? 'restore' },
      'policy',
    );
    if (over) this.#session.save();
  }

  /** The operator's word: the policy leaves the VM alone from now on. Throws TargetError when the guest has less. */
  setTarget(target: Target): void {
    const ram = this.#ramBytes;
    if ('memoryBytes' in target && ram === 0) {
      this.#manual = true;
      this.#wantedMemoryBytes = target.memoryBytes;
      this.#session.save();
      return;
    }
    const asked = 'memoryBytes' in target ? target.memoryBytes : target.balloonBytes;
    if (ram > 0 && asked > ram) {
      throw new TargetError(
        `${this.name} has ${formatSize(ram)} of memory, so ${formatSize(asked)} is too much: ask for ${formatSize(ram)} at most`,
      );
    }
    this.#wantedMemoryBytes = null;
    this.manual = true;
    this.#apply('memoryBytes' in target ? ram - asked : asked, 'operator');
  }

  refreshStats(timeoutMs: number): Promise<boolean> {
    return this.#balloon.stats.refresh(timeoutMs);
  }

  /** The operator's word. Resolves when it is in effect, and no discard under way if it is to stop them. */
  async setInhibited(reason: string | null): Promise<void> {
    if (reason === this.#operatorInhibits) return;
    this.#operatorInhibits = reason;
    this.#session.save();
    if (reason === null) this.checkPinned();
    await this.#inhibit();
  }

  /**
   * The same as checkPinned(), a part at a time, where something may have changed: the VMM has more or fewer files open,
   * or it is long ago.
   */
  recheckPinned(mayPin: boolean): Look {
    if (this.#pinSearch === null) {
      this.limits.check();
      if (!mayPin && this.#pinnedBy === null) return 'glance';
      const files = openFileCount(this.pid, this.#proc);
      const recent = performance.now() - this.#pinLookedAt < PIN_LOOK_MS;
      if (files !== null && files === this.#openFiles && recent) return 'glance';
      this.#openFiles = files;
      this.#pinSearch = searchPinning(this.pid, this.#proc);
    }
    const search = this.#pinSearch;
    for (const end = performance.now() + PIN_PART_MS; performance.now() < end;) {
      const { done, value } = search.next();
      if (done !== true) continue;
      this.#pinSearched(value);
      return 'whole';
    }
    return 'part';
  }

  /** Looks whether a device pins guest memory now; discards stop, or go on, accordingly. */
  checkPinned(): void {
    this.#pinSearched(findPinning(this.pid, this.#proc));
  }

  #pinSearched({ found, unknown }: PinSearch): void {
    this.#endPinSearch();
    if (this.#ended) return;
    this.#pinLookedAt = performance.now();
    if (unknown !== null && !this.#pinUnknown) {
      this.#pinUnknown = true;
      this.#emit('pin-unknown', `the VMM's open files cannot be looked at: ${unknown}`, { code: unknown });
    }
    if (found === this.#pinnedBy) return;
    this.#pinnedBy = found;
    void this.#inhibit();
  }

  #endPinSearch(): void {
    this.#pinSearch?.return(NOT_PINNED);
    this.#pinSearch = null;
  }

  async #inhibit(): Promise<void> {
    const reason = this.#operatorInhibits ?? pinReason(this.#pinnedBy);
    if (reason === this.#balloon.inhibited) return;
    const quiet = this.#balloon.setInhibited(reason);
    await quiet;
    if (reason !== null) this.#emit('inhibited', `discarding stopped: ${reason}`, { reason });
    else this.#emit('allowed', 'discarding resumed');
  }

  close(): void {
    this.#session.close();
  }

  /** So many milliseconds of the event loop went into serving it at all. */
  charge(ms: number): void {
    this.#session.seat.charge(ms);
  }

  inspectRegion({ gpa, userAddr }: RegionDescription): string | null {
    if (mapsPrivately(this.pid, userAddr) !== true) return null;
    const reason =
      'the VMM maps guest memory privately: add share=on to its memory backend and restart the VM';
    this.#privateMemory(reason, { gpa: `0x${gpa.toString(16)}` });
    return reason;
  }

  memoryChanged(): void {
    if (this.#ramBytes === 0) this.checkPinned();
    const { regions, sizeBytes } = this.#session.memory;
    this.#ramBytes = sizeBytes;
    this.limits.allow('memory-mapped');
    this.#emit('memory-mapped', `${formatSize(sizeBytes)} of guest memory, regions: ${regions.length}`, {
      regions: regions.length,
      bytes: sizeBytes,
      backingPageBytes: Math.max(0, ...regions.map((region) => region.file.pageBytes)),
    });
  }

  featuresAcked(features: FeatureBits): void {
    const names = this.#featureNames(features);
    this.#emit('features-negotiated', `the guest driver of the ${this.device} acked its features`, {
      features: names,
    });
  }

  /** Made once: it is most of what a view costs, and they are looked at again and again. */
  #featureNames(bits: FeatureBits): string[] {
    if (this.#named?.bits !== bits) {
      const names = featureNames(bits, BalloonFeature, CacheBalloonFeature, VirtioFeature, VhostFeature);
      this.#named = { bits, names };
    }
    return this.#named.names;
  }

  stateChanged(state: SessionState): void {
    this.#movedAt = monotonicNow();
    if (!this.#resuming) this.limits.allow(state);
    if (state !== 'running') {
      this.#problem = null;
      if (this.#session.intact())
        this.#emit('vm-stopped', `the guest driver stopped or reset the ${this.device}`);
      return;
    }
    this.#startedAt = monotonicNow();
    if (this.#resuming) return;
    this.#outsideReported = false;
    if (this.#wantedMemoryBytes !== null) {
      const wanted = this.#wantedMemoryBytes;
      this.#wantedMemoryBytes = null;
      if (wanted > this.#ramBytes) {
        this.#emit('target-clamped', `the guest has only ${formatSize(this.#ramBytes)}`, {
          askedBytes: wanted,
        });
      }
      this.#apply(Math.max(0, this.#ramBytes - wanted), 'operator');
    }
    this.#reached = this.#balloon.targetBytes === 0;
    this.#emit('vm-ready', `the guest driver of the ${this.device} runs`, {
      targetBytes: this.#balloon.targetBytes,
    });
  }

  kickAcked(ms: number): void {
    this.meters.kickToAck.observe(ms / 1000);
  }

  requestRefused(request: string, error: Error): void {
    this.meters.errors.frontend++;
    this.#emit('frontend-error', error.message, { request });
  }

  ringFailed(index: number, error: Error): void {
    this.meters.errors[error instanceof FrontendError ? 'frontend' : 'driver']++;
    if (error instanceof FrontendError) {
      this.#privateMemory(error.message, { ring: index });
      return;
    }
    this.#problem = `ring ${index} is stopped, reload the guest's balloon driver: ${error.message}`;
    this.#emit('driver-error', error.message, { ring: index });
  }

  throttled(): void {
    this.#emit('vm-throttled', 'the VM keeps the event loop busy, so other VMs go first', {
      tookMsPerSecond: Math.round(this.#session.seat.taken()),
    });
  }

  memoryLost(region: GuestRegion): void {
    this.#memoryLost = lostMemory(region);
    this.#emit('memory-lost', this.#memoryLost, { gpa: `0x${region.gpa.toString(16)}` });
  }

  queuesSettled(present: number, needed: number): void {
    if (present >= needed) {
      // It had not named all of them when it was looked at.
      if (this.#tooFewQueues !== null && this.#problem === this.#tooFewQueues) this.#problem = null;
      return;
    }
    this.#tooFewQueues = `the VMM has ${present} virtqueues for the ${this.device}, the offered features need ${needed}: set num_vqs=${needed} on that device and restart the VM`;
    this.#problem = this.#tooFewQueues;
    this.#emit('too-few-queues', this.#tooFewQueues, { present, needed });
  }

  configChangeSent(): void {
    this.#emit('config-change-sent', 'the VMM was told of a new target');
  }

  closed(error: Error | null): void {
    this.#ended = true;
    this.#endPinSearch();
    this.limits.close();
    if (this.#statsTimer !== null) clearTimeout(this.#statsTimer);
    if (error === null) this.#emit('vm-disconnected', 'the VMM closed its connection');
    else {
      this.meters.errors[error instanceof SystemError ? 'system' : 'frontend']++;
      this.#emit('vm-dropped', error.message);
    }
    this.#onClosed();
  }

  actualChanged(): void {
    const { actualBytes, targetBytes } = this.#balloon;
    this.#movedAt = monotonicNow();
    if (this.#reached || actualBytes !== targetBytes) return;
    this.#reached = true;
    this.#emit('target-reached', `the ${this.device} holds ${formatSize(actualBytes)}`, { actualBytes });
  }

  tookBack(): void {
    this.limits.allow('deflated');
  }

  statsReceived(): void {
    this.#emit('stats-received', 'the guest sent statistics');
    this.#session.changed();
  }

  pagesOutside(count: number): void {
    if (this.#outsideReported) return;
    this.#outsideReported = true;
    this.#emit('pfn-outside-memory', `${count} pages are in no shared memory region`, { pages: count });
  }

  discardsTried(error: SystemError | null, failedRanges: number, seconds: number): void {
    this.meters.discards.observe(seconds);
    this.meters.errors.system += failedRanges;
    if (error === null) {
      if (this.#session.memory.pendingPages === 0) this.#discardError = null;
      this.limits.settle();
      return;
    }
    const { code, syscall, message } = error;
    if (code === 'ENXIO') this.#session.memory.findLost();
    if (!this.#session.intact()) return;
    this.#failedRanges += failedRanges;
    if (this.#discardError?.code !== code) {
      this.#emit('discard-failed', message, { code, syscall, ranges: failedRanges });
    }
    this.#discardError = error;
  }

  poisonActive(poisonVal: number): void {
    this.#emit('page-poison-active', 'reported pages are kept: the guest relies on their poison', {
      poisonVal,
    });
  }

  #restore(found: VmRecord): void {
    this.#wantedMemoryBytes = found.wantedMemoryBytes;
    this.#problem = found.problem;
    if (found.stats !== null) {
      const { values, receivedAt, receivedBootMs } = found.stats;
      this.#balloon.stats.resume(new Map(Object.entries(values)), momentOf(receivedBootMs, receivedAt));
    }
    this.#manual = found.manual ?? false;
    this.#forcedFrom = found.forcedFrom ?? null;
    this.#ramBytes = this.#session.memory.sizeBytes;
    this.#reached = this.#balloon.actualBytes === this.#balloon.targetBytes;
    this.#operatorInhibits = found.inhibited;
    if (found.inhibited !== null) void this.#balloon.setInhibited(found.inhibited);
  }

  #apply(bytes: number, by: 'operator' | 'policy'): void {
    const before = this.#balloon.targetBytes;
    if (bytes > before) this.checkPinned();
    if (this.kind === 'balloon') this.limits.allow('target', bytes);
    this.#balloon.setTarget(bytes);
    const after = this.#balloon.targetBytes;
    if (after === before) return;
    this.#movedAt = monotonicNow();
    this.#movedBytes = this.#inAndOut();
    this.#reached = false;
    const what = this.kind === 'balloon' ? 'balloon target' : 'page cache balloon limit';
    this.#emit('target-changed', `${what} ${formatSize(before)} -> ${formatSize(after)}, by the ${by}`, {
      by,
      fromBytes: before,
      toBytes: after,
    });
  }

  /** A page that owes its discard is still the guest's, as far as the host's memory goes. */
  #guestUse(): GuestUse {
    const { memory, features, state } = this.#session;
    // What a page cache balloon holds is the guest's whenever it wants it.
    if (this.kind === 'cache-balloon') {
      return { ramBytes: this.#ramBytes, targetBytes: 0, discardedBytes: 0, tellsFirst: false };
    }
    return {
      ramBytes: this.#ramBytes,
      targetBytes: this.#balloon.targetBytes,
      discardedBytes: Math.max(0, memory.balloonedPages - memory.pendingPages) * PAGE_BYTES,
      tellsFirst: state === 'running' && hasFeature(features, BalloonFeature.VIRTIO_BALLOON_F_MUST_TELL_HOST),
    };
  }

  #privateMemory(reason: string, fields: Record<string, unknown>): void {
    if (this.#problem === reason) return;
    this.#problem = reason;
    this.#emit('private-memory', reason, fields);
  }

  /** Those that have names: a guest may send any number of others. */
  #statsRecord(): VmRecord['stats'] {
    const { values, receivedAt } = this.#balloon.stats;
    if (values === null || receivedAt === null) return null;
    const named = [...values].filter(([name]) => (STAT_NAMES as readonly string[]).includes(name));
    return {
      receivedAt: toWall(receivedAt),
      receivedBootMs: toBoot(receivedAt),
      values: Object.fromEntries(named),
    };
  }

  #verdict(): string | null {
    const free = this.#balloon.stats.values?.get(STAT_NAMES[4]);
    return verdict({
      problem: this.#lostProblem() ?? this.#problem ?? this.#discardProblem() ?? this.limits.problem(),
      state: this.#session.state,
      driver: this.kind === 'balloon' ? 'virtio_balloon' : 'virtio_cache_balloon',
      connectedMs: msSince(this.#connectedAt),
      stillMs: msSince(this.#movedAt),
      // Of a page cache balloon it is a limit: the guest holds what it can spare.
      targetBytes: this.kind === 'balloon' ? this.#balloon.targetBytes : this.#balloon.actualBytes,
      actualBytes: this.#balloon.actualBytes,
      ramBytes: this.#ramBytes,
      heldBytes: this.#session.memory.balloonedPages * PAGE_BYTES,
      guestFreeBytes: free ?? null,
      answered: this.#inAndOut() !== this.#movedBytes,
      statsAgeMs: this.#statsAgeMs(),
      statsIntervalMs: this.#statsIntervalSeconds * 1000,
      throttled: this.#session.seat.throttled,
      pinnedBy: this.#pinnedBy,
      silentRings: this.#silentRings(),
    });
  }

  #inAndOut(): number {
    const { inflated, deflated } = this.#balloon.totals;
    return inflated + deflated;
  }

  #statsAgeMs(): number | null {
    const asked =
      this.#statsIntervalSeconds > 0 &&
      hasFeature(this.#session.features, BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ);
    if (!asked) return null;
    const { receivedAt } = this.#balloon.stats;
    const startedMs = msSince(this.#startedAt);
    return receivedAt === null ? startedMs : Math.min(startedMs, msSince(receivedAt));
  }

  #lostProblem(): string | null {
    return this.#session.memory.lost === null ? null : this.#memoryLost;
  }

  #discardProblem(): string | null {
    if (this.#discardError === null) return null;
    const owed = formatSize(this.#session.memory.pendingPages * PAGE_BYTES);
    return `${this.#failedRanges} discards failed, the last with ${this.#discardError.message}; ${owed} given up by the guest is still in use: see discard-failed in balloond(8)`;
  }

  /** Kicks alone say nothing: each kick eventfd starts at 1. A driver with statistics primes their queue. */
  #silentRings(): boolean {
    const { vrings, features } = this.#session;
    const { targetBytes, actualBytes } = this.#balloon;
    const expected =
      targetBytes !== actualBytes || hasFeature(features, BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ);
    return expected && vrings.some(({ kicks }) => kicks > 0) && vrings.every(({ served }) => served === 0);
  }
}

function pinReason(file: string | null): string | null {
  return file === null ? null : `the VMM has ${file} open, which pins guest memory`;
}

function lostMemory(region: GuestRegion): string {
  const where = `${formatSize(region.sizeBytes)} of guest memory at 0x${region.gpa.toString(16)}`;
  return region.checkFile()
    ? `${where} cannot be had, its huge pages ran out or the hardware failed: the balloon is stopped; look into the host's kernel log, reserve more huge pages (vm.nr_hugepages) and restart the VM`
    : `the VMM cut the file with ${where} short: the balloon is stopped; keep everything from truncating the VM's memory file and restart the VM`;
}
