/**
 * A virtual machine as operators know it: its name, its process, its devices, and the orders that were given for it. Orders
 * are kept once, by name, and each device gets them as it comes. The fleet makes a Vm when a first device connects, calls
 * attach() and greet() for each, or takeOver() for those of the daemon before this one; the Vm ends with its last device.
 * order-book has the orders, kinds the table of devices, targets the target of a device by the orders; cgroup and limits are
 * of the VMM's process, pins of its open files; record is for the next daemon, and view for the control API.
 */
import type { RefusalText } from '../../protocol/control/refusal.js';
import type { LimitRequest, TargetRequest } from '../../protocol/control/schema.js';
import type { HostPaths } from '../host/host-paths.js';
import type { Emit } from '../ops/event-log.js';
import { wallNow, type WallMs } from '../os/clock.js';
import { withPart, withParts, type AnyDevice } from './any-device.js';
import { VmCgroup } from './cgroup.js';
import { VmDevice } from './device.js';
import type { DeviceHandOver, DeviceIdentity, DeviceOwner, VmWords } from './device-owner.js';
import { underPolicy, type Diagnosis } from './diagnosis.js';
import { freshStats } from './fresh-stats.js';
import { vmFigures, type VmFigures } from './figures.js';
import { Inhibition } from './inhibition.js';
import { inOrder, KINDS, type AnyKind, type Part } from './kinds.js';
import { VmLimits } from './limits.js';
import { LimitError } from './limits-words.js';
import { NOTHING_USED } from './limits-plan.js';
import type { OrderBook } from './order-book.js';
import {
  handedBack,
  hasTarget,
  inHand,
  isEmpty,
  limitWords,
  withLimitOrders,
  withLimits,
  withTarget,
  type Orders,
  type Wishes,
} from './orders.js';
import { Pins, type Look } from './pins.js';
import type { VmRecord } from './record.js';
import { inhibitedForGood, uninhibitable } from './refused-orders.js';
import { Sizes } from './sizes.js';
import { ordersInRecord, ordersOfRecord } from './taken-over.js';
import { targeted } from './tried-target.js';
import { VerdictWatch } from './verdict-watch.js';

export interface VmContext {
  readonly emit: Emit;
  readonly book: OrderBook;
  readonly wishes: Wishes;
  /** Whether the policy sets targets, of VMs that are not taken in hand. */
  readonly policyActs: () => boolean;
  readonly paths: HostPaths;
  /** A device is gone; the VM is, too, when it has none left. */
  readonly gone: (vm: Vm, device: AnyDevice) => void;
}

export class Vm implements DeviceOwner<AnyDevice> {
  readonly name: string;
  readonly pid: number;
  readonly cgroup: VmCgroup;
  readonly limits: VmLimits;
  readonly #context: VmContext;
  readonly #emit: Emit;
  readonly #pins: Pins;
  readonly sizes: Sizes;
  readonly #verdicts: VerdictWatch;
  /** In the order of the table of kinds, one of a kind. */
  #devices: readonly AnyDevice[] = [];
  #wishes: Wishes;
  readonly #inhibition: Inhibition;
  /** The policy holds the cgroup to less than was ordered. */
  #forced = false;
  /** An operator's interval of statistics, which devices get that come later; null: each has its own. */
  #statsInterval: number | null = null;
  /** Orders of the book, which a build without one may have changed. */
  #known: Orders | null = null;

  constructor(name: string, pid: number, context: VmContext) {
    this.name = name;
    this.pid = pid;
    this.#context = context;
    this.#wishes = context.wishes;
    this.#emit = (event, message, fields) => context.emit(event, message, fields, name);
    this.sizes = new Sizes(pid, this.#emit);
    this.#verdicts = new VerdictWatch(this.#emit);
    this.#inhibition = new Inhibition(this, this.#emit);
    this.cgroup = new VmCgroup({ pid, paths: context.paths, emit: this.#emit });
    this.limits = new VmLimits({
      cgroup: this.cgroup,
      emit: this.#emit,
      // A limit that is below the memory that a guest just got would end the VM.
      use: () => ({
        ...(this.#lead?.guestUse() ?? NOTHING_USED),
        ramBytes: Math.max(this.ramBytes, this.sharedBytes),
      }),
      save: () => this.#save(),
    });
    this.#pins = new Pins(pid, context.paths.proc, this.#emit, () => void this.#inhibition.settle());
  }

  /**
   * Serves a device, with the orders that hold. One that was found waits for takeOver(); throws StateError or SystemError
   * when it cannot be gone on with.
   */
  attach(fd: number, identity: DeviceIdentity, handOver: DeviceHandOver): VmDevice {
    const device = new VmDevice(fd, this, identity, handOver, this.#emit);
    this.join(device, identity.options.sharedCgroup);
    if (handOver.found === null) device.save();
    return device;
  }

  /** The device is the VM's from now on. `sharedCgroup`: a cgroup that holds other processes as well will do. */
  join(device: AnyDevice, sharedCgroup: boolean): void {
    this.cgroup.shared ||= sharedCgroup;
    this.#devices = inOrder([...this.#devices, device]);
    if (this.#statsInterval !== null) device.statsIntervalSeconds = this.#statsInterval;
    void device.setInhibited(this.inhibited);
  }

  /** A device connected that no daemon served before. */
  greet(device: AnyDevice): void {
    if (!isEmpty(this.#orders)) {
      const which = Object.keys(this.#orders).join(', ');
      const says = `orders that were given for this VM before hold for its ${device.words}: ${which}`;
      this.#emit('orders-applied', says, { orders: which });
    }
    void this.#inhibition.settle();
    this.#measure();
    this.#settleTarget(device);
    this.#orderLimits();
  }

  /** Goes on with a device where the daemon before this one ended. */
  takeOver(device: VmDevice, found: VmRecord): void {
    const { book } = this.#context;
    if (found.booked !== true || book.isNew) {
      const others = found.booked === true || this.#known !== null ? this.#orders : {};
      this.#known ??= this.#orders;
      const wholePause = book.paused !== null;
      const told = ordersOfRecord(found, device.figures.targetBytes, this.#known, wholePause);
      book.change(this.name, { ...others, ...told });
    }
    if (this.#devices.length === 1) this.#inhibition.found(this.#ordered);
    void device.setInhibited(this.inhibited);
    // Before a ring is served: a guest may wait for an answer to its deflate.
    this.limits.resume(found.limits ?? null);
    this.#pins.look();
    device.resume();
    this.#measure();
    this.limits.check();
    this.#settleTarget(device);
    // The policy of this daemon begins anew.
    if ((found.forcedFrom ?? null) !== null) {
      this.#forced = true;
      void this.force(null, null).catch(() => undefined);
    } else this.#orderLimits();
  }

  /** Its devices, and the page cache balloons that are within them. */
  get devices(): readonly AnyDevice[] {
    return withParts(this.#devices);
  }

  /** The device of this kind that a VMM connected. */
  device(kind: AnyKind): AnyDevice | undefined {
    return this.#devices.find((device) => device.kind === kind);
  }

  /** The device that plays this part, the first where several do. */
  playing(part: Part): AnyDevice | undefined {
    return this.devices.find((device) => device.part === part);
  }

  /** The memory of the guest, its balloon included; 0 where nothing is known of it. */
  get ramBytes(): number {
    return this.sizes.ramBytes;
  }

  /** The regions that the VMM shares, in bytes. A device whose driver has not started yet knows of none. */
  get sharedBytes(): number {
    return Math.max(0, ...this.devices.map(({ sharedBytes }) => sharedBytes));
  }

  get discardableBytes(): number {
    return Math.max(0, ...this.devices.map(({ discardableBytes }) => discardableBytes));
  }

  get allocatedBytes(): number {
    return Math.max(0, ...this.devices.map(({ allocatedBytes }) => allocatedBytes));
  }

  /** The longest discard that is under way, in milliseconds. */
  get discardingMs(): number {
    return Math.max(0, ...this.devices.map(({ discardingMs }) => discardingMs));
  }

  get orders(): Orders {
    return this.#orders;
  }
  /** The wall time at which the policy was paused for all VMs; null: it is not. */
  get policyPaused(): WallMs | null {
    return this.#context.book.paused;
  }

  /** The policy was paused for all VMs, or resumed: builds without a book go by the records of VMs. */
  pauseChanged(): void {
    this.#save();
  }

  get wishes(): Wishes {
    return this.#wishes;
  }

  /** Why nothing is discarded: the word of an operator or of the configuration, or a file that pins guest memory. */
  get inhibited(): string | null {
    return this.#ordered ?? this.#pins.reason;
  }

  /** Why nobody here can stop the discards of the VM, as the end of a sentence; null: they can be stopped. */
  get uninhibitable(): RefusalText | null {
    return this.#lead === undefined ? null : KINDS[this.#lead.kind].uninhibitable;
  }

  get pinnedBy(): string | null {
    return this.#pins.by;
  }

  /** The verdict: of the device that speaks for the VM where that has something to say. */
  get diagnosis(): Diagnosis | null {
    for (const { diagnosis } of this.devices)
      if (diagnosis !== null) return this.manual ? diagnosis : underPolicy(diagnosis, this.name);
    return null;
  }

  get limitable(): boolean {
    return this.limits.writable;
  }

  /** Whether the policy leaves the VM alone. False takes back the orders by which it does. */
  get manual(): boolean {
    return inHand(this.#orders) || this.#wishes.manual;
  }
  get leftAlone(): boolean {
    return this.#wishes.manual && !inHand(this.#orders);
  }

  set manual(manual: boolean) {
    if (manual && this.#orders.paused === undefined) {
      this.#order({ ...this.#orders, paused: { since: wallNow() } });
    } else if (!manual && inHand(this.#orders)) {
      const before = this.#orders;
      this.#order(handedBack(before));
      for (const device of this.devices) this.#settleTarget(device, hasTarget(before, device.part));
    }
  }

  get figures(): VmFigures {
    return vmFigures(this.playing('balloon')?.figures, this.playing('cache')?.figures, this.inhibited);
  }

  /** The policy's words. Never beyond what there is. */
  setPolicyTarget(balloonBytes: number): void {
    this.playing('balloon')?.setTarget(Math.min(balloonBytes, this.ramBytes), 'policy');
  }

  setCacheLimit(cacheBytes: number): void {
    this.playing('cache')?.setTarget(Math.min(cacheBytes, this.ramBytes), 'policy');
  }

  /** The policy's word: holds the cgroup to these; null: to what was ordered. Rejects with LimitError. */
  async force(highBytes: number | null, maxBytes: number | null): Promise<void> {
    if (!this.#forced) {
      if (highBytes === null) return;
      this.#forced = true;
      this.#save();
    }
    const ordered = limitWords(this.#orders) ?? {};
    const over = highBytes === null && maxBytes === null;
    if (over) this.#forced = false;
    const high = highBytes ?? ordered.high ?? 'restore';
    await this.limits.request({ high, max: maxBytes ?? ordered.max ?? 'restore' }, 'policy');
    if (over) this.#save();
  }

  /** The operator's word: the policy leaves the VM alone from now on. Throws RefusedError. */
  setTarget(target: TargetRequest): void {
    const device = targeted(this, target);
    this.#order(withTarget(this.#orders, target, wallNow()));
    this.sizes.forget(device.part);
    const before = device.figures.targetBytes;
    this.#settleTarget(device);
    if (device.figures.targetBytes === before) device.remind();
  }

  /** The operator's word. Resolves when it is in effect, and no discard under way if it is to stop them. Rejects with RefusedError. */
  async setInhibited(reason: string | null): Promise<void> {
    if (reason !== null && this.uninhibitable !== null) throw uninhibitable(this.name, this.uninhibitable);
    const { inhibit, ...others } = this.#orders;
    if (reason === null && inhibit === undefined && this.#wishes.inhibit !== null) {
      throw inhibitedForGood(this.name, this.#wishes.inhibit);
    }
    if (reason !== (inhibit?.reason ?? null)) {
      this.#order(reason === null ? others : { ...others, inhibit: { reason, since: wallNow() } });
    }
    if (reason === null) this.#pins.look();
    await this.#inhibition.settle();
  }

  /** The operator's word. Resolves when the kernel has taken the limits; rejects with LimitError. */
  async setLimits(asked: LimitRequest): Promise<void> {
    const { limits: before } = this.#orders;
    this.#order(withLimits(this.#orders, asked, wallNow()));
    try {
      await this.limits.request(asked);
    } catch (error) {
      this.#order(withLimitOrders(this.#orders, before));
      throw error;
    }
  }

  get statsIntervalSeconds(): number {
    return this.#lead?.statsIntervalSeconds ?? 0;
  }

  set statsIntervalSeconds(seconds: number) {
    this.#statsInterval = seconds;
    for (const device of this.devices) device.statsIntervalSeconds = seconds;
  }

  /** Throws RefusedError when the guest can send none, or sends none in time. */
  refreshStats(timeoutMs: number): Promise<void> {
    return freshStats(this.name, this.#lead, timeoutMs);
  }

  /** What the configuration says of the VM from now on. */
  configure(wishes: Wishes): void {
    const lapsed = this.#wishes.target !== null;
    this.#statsInterval = null;
    this.#wishes = wishes;
    this.#save();
    void this.#inhibition.settle();
    for (const device of this.devices) this.#settleTarget(device, lapsed && device.part === 'balloon');
  }

  /** To be called now and then: looks whether a device pins guest memory, at the limits, and at what was discarded. */
  recheckPinned(mayPin: boolean): Look {
    this.limits.check();
    this.#verdicts.look(() => this.diagnosis);
    if (this.limits.areOwed) this.#orderLimits();
    for (const device of this.devices) device.absence?.look();
    return this.#pins.lookAgain(mayPin);
  }

  close(): void {
    for (const device of this.devices) device.close();
  }

  words(): VmWords {
    return {
      inhibited: this.#ordered,
      manual: this.manual || this.#context.book.paused !== null,
      ...ordersInRecord(this.#orders, { forced: this.#forced, memoryKnown: this.sharedBytes > 0 }),
      booked: true,
      limits: this.limits.record(),
    };
  }

  allow(why: string, targetBytes?: number): void {
    this.limits.allow(why, targetBytes);
  }

  settle(): void {
    this.limits.settle();
  }

  rises(): void {
    this.#pins.look();
  }

  memoryChanged(): void {
    if (!this.sizes.isShared) this.#pins.look();
    this.#measure();
    this.limits.allow('memory-mapped');
  }

  memoryTold(): void {
    this.#measure();
  }

  driverStarted(device: AnyDevice): void {
    for (const one of withPart(device)) this.#settleTarget(one);
  }

  closed(device: AnyDevice): void {
    this.#devices = this.#devices.filter((one) => one !== device);
    if (this.#devices.length === 0) {
      this.#pins.close();
      this.limits.close();
      this.cgroup.close();
    }
    this.#context.gone(this, device);
  }

  /** The device that speaks for the VM. */
  get #lead(): AnyDevice | undefined {
    return this.devices[0];
  }

  get #orders(): Orders {
    return this.#context.book.of(this.name);
  }

  get #ordered(): string | null {
    return this.uninhibitable !== null ? null : (this.#orders.inhibit?.reason ?? this.#wishes.inhibit);
  }

  /** Writes an order down, before anything follows from it. */
  #order(orders: Orders): void {
    this.#context.book.change(this.name, orders);
    this.#save();
  }

  #save(): void {
    for (const device of this.devices) device.save();
  }

  /** Finds out how much memory the guest has; targets follow. */
  #measure(): void {
    if (!this.sizes.measure(this.sharedBytes, this.devices)) return;
    for (const device of this.devices) this.#settleTarget(device);
  }

  /** `lapsed`: an order for its target was taken back. */
  #settleTarget(device: AnyDevice, lapsed = false): void {
    const governed = this.#context.policyActs() && !this.manual;
    this.sizes.settle(device, { orders: this.#orders, wishes: this.#wishes, lapsed: lapsed && !governed });
  }

  /** Sets the limits that were ordered for this VM when it had another process. */
  #orderLimits(): void {
    const words = limitWords(this.#orders);
    if (words === null || this.limits.touched || this.#forced) return;
    this.limits.request(words).catch((error: unknown) => {
      if (!(error instanceof LimitError)) throw error;
      this.limits.failed(error.diagnosis);
    });
  }
}
