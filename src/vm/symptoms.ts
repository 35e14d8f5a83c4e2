import type { Obstacle } from '../../protocol/control/diagnosis.js';
import { STAT_NAMES } from '../../protocol/virtio/balloon.js';
import { PAGE_BYTES } from '../memory/region.js';
import { msSince, type Monotonic } from '../os/clock.js';
import type { SessionState } from '../vhost-user/session.js';
import type { Absence } from './absence.js';
import type { DeviceOwner } from './device-owner.js';
import { ringsSilent, type Diagnosis, type Symptoms } from './diagnosis.js';
import type { HugePageWatch } from './huge-page-watch.js';
import { KINDS, PARTS } from './kinds.js';
import type { Progress } from './progress.js';
import { givesOnOom, sizeBytes, toldBytes, type ServedDevice } from './served-device.js';
import type { StatsAsker } from './stats-asker.js';
import type { Troubles } from './troubles.js';

/** Where the symptoms of a device are found. */
interface Sources {
  readonly served: ServedDevice;
  readonly kind: keyof typeof KINDS;
  readonly owner: Pick<DeviceOwner<unknown>, 'ramBytes' | 'sizes' | 'pinnedBy' | 'limits'>;
  readonly troubles: Troubles;
  readonly hugePages: HugePageWatch;
  readonly absence: Absence | null;
  readonly progress: Progress;
  readonly asker: StatsAsker;
  readonly obstacle: () => Obstacle | null;
}

/** The symptoms of one device as they are when they are read, each by itself: of a VM that is well, most never are. */
export class DeviceSymptoms implements Symptoms {
  /** When the VMM connected, or the VM went back to the state in which it had. */
  connectedAt: Monotonic;
  readonly obstacle: () => Obstacle | null;
  readonly toLeave = null;
  readonly #of: Sources;

  constructor(sources: Sources, connectedAt: Monotonic) {
    this.#of = sources;
    this.obstacle = sources.obstacle;
    this.connectedAt = connectedAt;
  }

  get problem(): Diagnosis | null {
    const { troubles, served, hugePages, owner } = this.#of;
    return troubles.gravest(served.session.memory) ?? hugePages.diagnosis(this) ?? owner.limits.problem();
  }

  get state(): SessionState {
    return this.#of.served.session.state;
  }

  get driver(): Symptoms['driver'] {
    return KINDS[this.#of.kind].driver;
  }

  get connectedMs(): number {
    return msSince(this.connectedAt);
  }

  get stillMs(): number {
    return this.#of.progress.stillMs;
  }

  get ramBytes(): number {
    return this.#of.owner.ramBytes;
  }

  get toldBytes(): number | null {
    return toldBytes(this.#of.served);
  }

  get leastBytes(): number {
    return this.#of.owner.sizes.leastBytes;
  }

  get discardableBytes(): number | null {
    const { owner, served } = this.#of;
    return owner.sizes.ramIsKnown ? served.session.memory.discardableBytes : null;
  }

  get targetBytes(): number {
    const { served } = this.#of;
    return PARTS[served.part].sizesItself ? this.actualBytes : served.balloon.targetBytes;
  }

  get actualBytes(): number {
    return sizeBytes(this.#of.served);
  }

  get actualUnknown(): boolean {
    return this.#of.served.balloon.actualUnknown;
  }

  get heldBytes(): number {
    return this.#of.served.session.memory.balloonedPages * PAGE_BYTES;
  }

  get tookBackBytes(): number {
    return this.#of.progress.tookBackBytes;
  }

  get awayMs(): number {
    return this.#of.progress.awayMs;
  }

  get overshotBytes(): number {
    return this.#of.progress.overshotBytes;
  }

  get deflatesOnOom(): boolean {
    return givesOnOom(this.#of.served);
  }

  get guestFreeBytes(): number | null {
    return this.#of.served.balloon.stats.values?.get(STAT_NAMES[4]) ?? null;
  }

  get answered(): boolean {
    const { inflated, deflated } = this.#of.served.balloon.totals;
    return this.#of.progress.answered(inflated + deflated);
  }

  get statsAgeMs(): number | null {
    return this.#of.asker.ageMs(this.#of.served.session.features);
  }

  get statsIntervalMs(): number {
    return this.#of.asker.intervalSeconds * 1000;
  }

  get throttled(): boolean {
    return this.#of.served.session.seat.throttled;
  }

  get pinnedBy(): string | null {
    return this.#of.owner.pinnedBy;
  }

  get absence(): Diagnosis | null {
    return this.#of.absence?.diagnosis() ?? null;
  }

  get unknownQueues(): readonly number[] {
    const { balloon, session } = this.#of.served;
    const { configured } = session;
    return balloon.unknownQueues.filter((queue) => configured.includes(queue));
  }

  get silentRings(): boolean {
    const { vrings, features } = this.#of.served.session;
    const toMove = this.actualUnknown || this.#of.served.balloon.targetBytes !== this.actualBytes;
    return ringsSilent(vrings, features, toMove);
  }
}
