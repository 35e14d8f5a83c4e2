/**
 * The page cache balloon of a driver that has both limits on one device: to its Vm, to views and to the policy it is a device as
 * any other of its part. Its connection, its memory and its discards are those of the device that it is within.
 */
import type { BalloonView } from '../../protocol/control/schema.js';
import type { Emit } from '../ops/event-log.js';
import { VmMeters } from '../ops/vm-meters.js';
import type { AnyDevice } from './any-device.js';
import type { DeviceOwner } from './device-owner.js';
import type { DeviceFigures } from './figures.js';
import { KINDS, type AnyBalloon } from './kinds.js';
import { NOTHING_USED, type DeviceUse } from './limits-plan.js';
import { TargetMover } from './target-mover.js';
import type { TargetBy } from './targets.js';

const { part, words, targetWords } = KINDS['cache-balloon'];

export class CacheWithin implements AnyDevice {
  readonly kind = 'cache-balloon';
  readonly part = part;
  readonly words = words;
  readonly meters = new VmMeters();
  readonly absence = null;
  readonly diagnosis = null;
  readonly toldBytes = null;
  readonly features = [];
  readonly within = null;
  onActual = null;
  readonly #whole: AnyDevice;
  readonly #balloon: NonNullable<AnyBalloon['cache']>;
  readonly #mover: TargetMover;

  constructor(
    whole: AnyDevice,
    balloon: NonNullable<AnyBalloon['cache']>,
    owner: Pick<DeviceOwner<never>, 'rises' | 'allow'>,
    emit: Emit,
  ) {
    this.#whole = whole;
    this.#balloon = balloon;
    const moved = (): void => undefined;
    this.#mover = new TargetMover({ part, targetWords, balloon, owner, emit, moved });
  }

  get socketPath(): string | null {
    return this.#whole.socketPath;
  }

  get statsIntervalSeconds(): number {
    return this.#whole.statsIntervalSeconds;
  }

  set statsIntervalSeconds(_seconds: number) {
    // Its guest sends them to the device that it is within.
  }

  get sharedBytes(): number {
    return this.#whole.sharedBytes;
  }

  get discardableBytes(): number {
    return this.#whole.discardableBytes;
  }

  get allocatedBytes(): number {
    return this.#whole.allocatedBytes;
  }

  get discardingMs(): number {
    return this.#whole.discardingMs;
  }

  get figures(): DeviceFigures {
    const { targetBytes, actualBytes } = this.#balloon;
    return { ...this.#whole.figures, targetBytes, actualBytes, actualUnknown: false, stats: null };
  }

  balloonView(): BalloonView {
    const { targetBytes, actualBytes, totals } = this.#balloon;
    return {
      targetBytes,
      actualBytes,
      actualUnknown: false,
      pendingBytes: 0,
      refilledBytes: null,
      pinnedBytes: null,
      // Among those of the device that it is within.
      discardedBytesTotal: null,
      inflatedBytesTotal: totals.inflated,
      deflatedBytesTotal: totals.deflated,
      reportedBytesTotal: null,
      discardSecondsTotal: null,
    };
  }

  guestUse(): DeviceUse {
    return NOTHING_USED;
  }

  setTarget(bytes: number, by: TargetBy): void {
    this.#mover.setTarget(bytes, by);
  }

  setSize(bytes: number, why: string): void {
    this.#mover.setSize(bytes, why);
  }

  remind(): void {
    this.#whole.remind();
  }

  setInhibited(): Promise<void> {
    return Promise.resolve();
  }

  refreshStats(timeoutMs: number): Promise<boolean> {
    return this.#whole.refreshStats(timeoutMs);
  }

  save(): void {
    this.#whole.save();
  }

  close(): void {
    this.#whole.close();
  }
}
