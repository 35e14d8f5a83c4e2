// Rings of one VM in this process, the balloon behind them, and a driver that does anything, also while it is served.
import { VHOST_VRING_F_LOG } from '../../protocol/vhost-user/payloads.js';
import { Balloon } from '../../src/balloon/balloon.js';
import { StateFile } from '../../src/memory/state-file.js';
import { createEventFd, signalEvent } from '../../src/os/eventfd.js';
import { closeFd, duplicateFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { DirtyLog } from '../../src/vhost-user/dirty-log.js';
import { Turns } from '../../src/vhost-user/turns.js';
import { Vring, type VringContext } from '../../src/vhost-user/vring.js';
import { BALLOON_F } from '../support/balloon-driver.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import {
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_RING_PACKED,
  F_VERSION_1,
  type ChainBuffer,
} from '../support/guest-ring.js';
import { bits, hasBit, u32s } from '../support/wire.js';
import type { Chain } from '../../src/virtqueue/chain.js';
import type { Dice } from './dice.js';
import { until } from './fuzzer.js';
import { PageOwners } from './page-owners.js';
import { encode, RING_BYTES, RingWriter, type RawDescriptor } from './ring-writer.js';
import { WatchedBalloon } from './watched-balloon.js';
import { WatchedMemory } from './watched-memory.js';

const QUEUES = 5;
const BUFFERS_GPA = QUEUES * RING_BYTES;
const BUFFERS = 64;
const RINGS_BYTES = BUFFERS_GPA + BUFFERS * PAGE_BYTES;
/** Of which the balloon is fed. */
const RAM_GPA = 2 ** 32;
const RAM_PAGES = 256;
/** Nobody speaks of it, and no power of two is near. */
const BYSTANDER_GPA = 0xa5a5a00000;
const BYSTANDER_PAGES = 32;
const USER = 0x7f0000000000n;
const SIZES = [1, 2, 4, 16, 16, 64, 256] as const;
const LOG_PAGES = 2;

export class HostileDriver implements VringContext {
  readonly memory: WatchedMemory;
  readonly device: WatchedBalloon;
  readonly seat = new Turns().seat();
  dirtyLog: DirtyLog | null = null;
  features = 0n;
  running = false;
  readonly #dice: Dice;
  readonly #rings = new GuestRam([{ gpa: 0, lenBytes: RINGS_BYTES }]);
  readonly #ram = new GuestRam([
    { gpa: RAM_GPA, lenBytes: RAM_PAGES * PAGE_BYTES },
    { gpa: BYSTANDER_GPA, lenBytes: BYSTANDER_PAGES * PAGE_BYTES },
  ]);
  readonly #owners: PageOwners;
  readonly #balloon: Balloon;
  readonly #vrings: Vring[];
  #writers: RingWriter[] = [];
  /** Split: used indexes that were accounted for. */
  #seen: number[] = [];
  readonly #kicks = Array.from({ length: QUEUES }, () => createEventFd());
  readonly #failed = new Set<number>();
  /** Chains that each queue was handed since it flushed last. */
  readonly #taken: number[] = Array.from({ length: QUEUES }, () => 0);
  /** What a device must not be handed. It is said later: who calls here takes errors for the driver's. */
  #wrong: string | null = null;
  #meddling = 0;
  /** The driver wrote where only the device may: what it reads there means nothing any more. */
  #scribbled = false;

  constructor(dice: Dice) {
    this.#dice = dice;
    this.memory = new WatchedMemory(StateFile.create());
    this.#owners = PageOwners.of(this.#ram);
    for (const { gpa, lenBytes, userAddress, file } of [...this.#rings.regions, ...this.#ram.regions]) {
      const description = {
        gpa: BigInt(gpa),
        sizeBytes: BigInt(lenBytes),
        userAddr: userAddress,
        mmapOffset: 0n,
      };
      this.memory.add(description, duplicateFd(file.fd));
    }
    const host = {
      configChanged: () => undefined,
      complete: (queue: number, chain: Parameters<Vring['complete']>[0], written: number) =>
        this.#vrings[queue]?.complete(chain, written),
    };
    const observer = {
      tookBack: () => undefined,
      actualChanged: () => undefined,
      statsReceived: () => undefined,
      pagesOutside: () => undefined,
      discardsTried: () => undefined,
      poisonActive: () => undefined,
      hugePages: {
        restarted: () => undefined,
        kept: () => undefined,
        short: () => undefined,
        enough: () => undefined,
      },
    };
    const offered = bits(
      ...Object.values(BALLOON_F),
      F_RING_PACKED,
      F_INDIRECT_DESC,
      F_EVENT_IDX,
      F_VERSION_1,
    );
    const discards = { delayMs: dice.below(3), discardsUntold: false };
    this.#balloon = new Balloon({ memory: this.memory, host, observer, offered, discards });
    this.device = new WatchedBalloon(this.#balloon, this.memory, this.#owners);
    this.device.onChain = (queue, chain) => this.#taking(queue, chain);
    this.device.onFlush = (queue) => (this.#taken[queue] = 0);
    this.device.onGiven = (from) => {
      // It gave up its own rings: they are zeros then.
      if (from < BUFFERS_GPA) this.#scribbled = true;
    };
    this.device.meddle = this.memory.meddle = () => this.#meddle();
    this.#vrings = Array.from({ length: QUEUES }, (_, index) => new Vring(index, this));
    this.#meddling = dice.pick([0, 0, 5, 30]);
    if (dice.chance(30)) {
      const region = { sizeBytes: BigInt(LOG_PAGES * PAGE_BYTES), offset: 0n };
      this.dirtyLog = new DirtyLog(region, createMemfd('log', LOG_PAGES * PAGE_BYTES), () => undefined);
    }
  }

  get configured(): readonly number[] {
    return this.#vrings.filter((vring) => vring.configured).map(({ index }) => index);
  }

  intact(): boolean {
    return true;
  }

  ringFailed(index: number): void {
    this.#failed.add(index);
  }

  kickAcked(): void {
    return;
  }

  /** A driver that is new, with features and rings of its choice. */
  start(): void {
    const dice = this.#dice;
    const packed = dice.chance(40);
    const balloon = bits(BALLOON_F.STATS_VQ, BALLOON_F.FREE_PAGE_HINT, BALLOON_F.REPORTING);
    this.features =
      (packed ? bits(F_RING_PACKED) : 0n) |
      (dice.chance(70) ? bits(F_EVENT_IDX) : 0n) |
      (dice.chance(80) ? bits(F_INDIRECT_DESC) : 0n) |
      (dice.chance(70) ? bits(BALLOON_F.MUST_TELL_HOST) : 0n) |
      (dice.chance(20) ? bits(BALLOON_F.PAGE_POISON) : 0n) |
      (dice.chance(85) ? balloon : BigInt(dice.below(64)));
    this.device.setFeatures(this.features);
    if (dice.chance(10)) this.device.writeConfig(12, u32s(dice.u32()));
    this.#scribbled = false;
    this.#writers = this.#vrings.map((vring, index) => this.#setUp(vring, index, packed));
    this.#seen = this.#writers.map(() => 0);
    this.#failed.clear();
    this.#resume(false);
  }

  /** The rings go on where they were, or begin anew. */
  async restart(): Promise<void> {
    await this.#stop();
    if (this.#dice.chance(50)) {
      for (const [index, vring] of this.#vrings.entries()) {
        vring.stop();
        vring.setKick(duplicateFd(this.#kicks[index] ?? -1));
        this.#failed.delete(index);
      }
      // Chains of the rings that are broken, or were held, are seen again.
      this.#scribbled = true;
      this.#resume(true);
      return;
    }
    for (const vring of this.#vrings) vring.reset();
    this.#owners.takeAll();
    this.start();
  }

  /** Some chains on one ring, and a kick. */
  work(): void {
    const dice = this.#dice;
    const index = dice.below(QUEUES);
    const writer = this.#writers[index];
    const vring = this.#vrings[index];
    if (writer === undefined || vring === undefined) return;
    const most = Math.min(writer.size, dice.chance(95) ? 4 : 100);
    for (let n = 1 + dice.below(most); n > 0; n--) this.#offer(writer, index);
    if (dice.chance(10)) this.#break(writer);
    if (dice.chance(3)) this.#scribble(writer);
    if (dice.chance(20)) this.#askForCalls(writer);
    if (dice.chance(50)) signalEvent(this.#kicks[index] ?? -1);
    else vring.drain();
    if (!writer.packed) this.#account(index, writer);
  }

  command(): void {
    const dice = this.#dice;
    const act = dice.below(4);
    if (act === 0) this.#balloon.setTarget(dice.below(2 ** 30));
    else if (act === 1) this.#balloon.stats.request();
    else if (act === 2) void this.#balloon.setInhibited(dice.chance(30) ? 'fuzz' : null);
    else this.device.readConfig(dice.u32(), dice.below(300));
  }

  check(): void {
    if (this.#wrong !== null) throw new Error(this.#wrong);
    for (const [index, writer] of this.#writers.entries()) if (!writer.packed) this.#account(index, writer);
    this.#owners.check();
  }

  async close(): Promise<void> {
    await this.#stop();
    this.check();
    for (const vring of this.#vrings) vring.close();
    this.dirtyLog?.close();
    this.memory.close();
    this.#owners.close();
    this.#kicks.forEach(closeFd);
    this.#rings.close();
    this.#ram.close();
  }

  #setUp(vring: Vring, index: number, packed: boolean): RingWriter {
    const dice = this.#dice;
    const size = packed && dice.chance(40) ? 1 + dice.below(100) : dice.pick(SIZES);
    const writer = new RingWriter(this.#rings, index * RING_BYTES, size, packed);
    const user = (gpa: number): bigint =>
      dice.chance(98) ? USER + BigInt(gpa) : dice.u64(USER + BigInt(gpa));
    vring.setSize(dice.chance(98) ? size : 1 + dice.below(32768));
    vring.setBase(dice.chance(98) ? (packed ? 0x80008000 : dice.word() & 0xffff) : dice.word());
    vring.setAddress({
      index,
      flags: dice.chance(50) ? VHOST_VRING_F_LOG : 0,
      descriptor: user(writer.gpa),
      used: user(writer.deviceGpa),
      available: user(writer.driverGpa),
      log: 0n,
    });
    vring.setKick(duplicateFd(this.#kicks[index] ?? -1));
    if (dice.chance(80)) vring.setCall(createEventFd());
    if (dice.chance(80)) vring.setErr(createEventFd());
    vring.enabled = dice.chance(98);
    return writer;
  }

  #resume(resumed: boolean): void {
    for (const vring of this.#vrings) vring.attach();
    this.device.start(resumed);
    this.running = true;
    for (const vring of this.#vrings) vring.drain();
  }

  /** As a session does it: nothing is under way when rings are let go of. */
  async #stop(): Promise<void> {
    await new Promise<void>((resolve) => {
      const stop = (): void => {
        this.check();
        this.running = false;
        for (const vring of this.#vrings) vring.detach();
        this.device.stop();
        resolve();
      };
      if (this.device.interrupt(stop)) stop();
    });
    let quiet = false;
    if (this.device.interrupt(() => (quiet = true))) quiet = true;
    await until(() => quiet, 'the device comes to rest');
  }

  #offer(writer: RingWriter, queue: number): void {
    const dice = this.#dice;
    const count = dice.pick([1, 1, 1, 2, 3, 8]);
    const buffers = Array.from({ length: count }, () => this.#buffer(queue));
    const indirect = hasBit(this.features, F_INDIRECT_DESC) ? dice.chance(40) : dice.chance(2);
    const id = dice.below(writer.size);
    const descriptors = writer.describe(buffers, indirect, id);
    const odd = dice.chance(6);
    const changed = odd ? descriptors.map((each) => this.#mutated(each)) : descriptors;
    writer.offer(changed, odd && dice.chance(10) ? dice.word() & 0xffff : id, dice.chance(98));
  }

  #buffer(queue: number): ChainBuffer {
    const dice = this.#dice;
    const gpa = BUFFERS_GPA + PAGE_BYTES * dice.below(BUFFERS - 1);
    // 0 and 1 take page numbers; behind them which is which depends on the features.
    if (queue === 2 && dice.chance(80)) {
      this.#rings.write(gpa, dice.bytes(10 * dice.below(16)));
      return { gpa, len: 10 * dice.below(16) };
    }
    if (queue >= 3 && dice.chance(85)) {
      const page = dice.below(RAM_PAGES);
      const len = dice.chance(90) ? PAGE_BYTES * (1 + dice.below(16)) : dice.below(2 ** 20);
      return {
        gpa: RAM_GPA + page * PAGE_BYTES + (dice.chance(95) ? 0 : dice.below(PAGE_BYTES)),
        len,
        writable: true,
      };
    }
    const pfns = this.#pfns();
    this.#rings.write(gpa, u32s(...pfns));
    const len = dice.chance(97) ? 4 * pfns.length : dice.below(4 * pfns.length + 3);
    return { gpa, len, writable: dice.chance(1) };
  }

  #pfns(): number[] {
    const dice = this.#dice;
    const first = RAM_GPA / PAGE_BYTES;
    if (dice.chance(40)) {
      const start = dice.below(RAM_PAGES);
      return Array.from({ length: 1 + dice.below(64) }, (_, n) => first + ((start + n) % RAM_PAGES));
    }
    return Array.from({ length: dice.below(64) }, () =>
      dice.chance(97) ? first + dice.below(RAM_PAGES) : this.#spared(dice.u32()),
    );
  }

  /** Any page number but those of the bystander. */
  #spared(pfn: number): number {
    const from = BYSTANDER_GPA / PAGE_BYTES;
    return pfn >= from && pfn < from + BYSTANDER_PAGES ? 0 : pfn;
  }

  #mutated(descriptor: RawDescriptor): RawDescriptor {
    const dice = this.#dice;
    switch (dice.below(5)) {
      case 0:
        return { ...descriptor, gpa: dice.u64(BigInt(RAM_GPA)) };
      case 1:
        return { ...descriptor, len: dice.u32() };
      case 2:
        return {
          ...descriptor,
          flags: dice.chance(50) ? descriptor.flags ^ (1 << dice.below(16)) : dice.below(8),
        };
      case 3:
        return { ...descriptor, next: dice.word() & 0xffff };
      default:
        return descriptor;
    }
  }

  /** What no driver does to what is its own. */
  #break(writer: RingWriter): void {
    const dice = this.#dice;
    const { size } = writer;
    switch (dice.below(6)) {
      case 0:
        writer.writeAvailIndex(dice.word());
        break;
      case 1:
        writer.writeAvailEntry(dice.below(size), dice.chance(50) ? dice.below(size) : dice.word());
        break;
      case 2: {
        const entry = this.#mutated({
          gpa: BigInt(BUFFERS_GPA),
          len: 64,
          flags: dice.below(8),
          next: dice.below(8),
        });
        this.#rings.write(writer.tableGpa(dice.below(32)), encode(entry, writer.packed));
        break;
      }
      case 3:
        this.#rings.write(writer.driverGpa + dice.below(8), dice.bytes(2));
        break;
      case 4:
        this.#rings.write(writer.gpa + 4 * dice.below(4 * size), dice.bytes(4));
        break;
      default: {
        const entry = { gpa: BigInt(BUFFERS_GPA), len: 4, flags: dice.below(8), next: dice.below(size) };
        writer.writeDescriptor(dice.below(size), this.#mutated(entry));
      }
    }
  }

  /** Into what belongs to the device. */
  #scribble(writer: RingWriter): void {
    this.#scribbled = true;
    this.#rings.write(writer.deviceGpa + this.#dice.below(64), this.#dice.bytes(2));
  }

  #askForCalls(writer: RingWriter): void {
    const dice = this.#dice;
    const at = writer.packed ? writer.driverGpa : writer.driverGpa + dice.pick([0, 4 + 2 * writer.size]);
    const offWrap = writer.packed ? dice.below(writer.size) | (dice.below(2) << 15) : dice.below(4);
    this.#rings.write(at, Uint8Array.of(offWrap, offWrap >>> 8));
    if (writer.packed) this.#rings.write(at + 2, Uint8Array.of(dice.pick([0, 1, 2, 2, 2, 3]), 0));
  }

  /** Between two of the device's reads. */
  #meddle(): void {
    if (!this.#dice.chance(this.#meddling)) return;
    const writer = this.#writers[this.#dice.below(QUEUES)];
    if (writer === undefined) return;
    if (this.#dice.chance(50)) this.#break(writer);
    else this.#rings.write(BUFFERS_GPA + PAGE_BYTES * this.#dice.below(BUFFERS), u32s(...this.#pfns()));
  }

  /** A chain has a number that the ring has, and a ring that nobody changes meanwhile no more of them than descriptors. */
  #taking(queue: number, { id }: Chain): void {
    const size = this.#vrings[queue]?.size ?? 0;
    const taken = (this.#taken[queue] ?? 0) + 1;
    this.#taken[queue] = taken;
    if (id >= size) this.#wrong ??= `ring ${queue} of ${size} has a chain ${id}`;
    if (taken > size && this.#meddling === 0) {
      this.#wrong ??= `${taken} chains were taken at once of ring ${queue} of ${size}`;
    }
  }

  /** What came back on a split ring: what the device was handed, in that order, each once. */
  #account(index: number, writer: RingWriter): void {
    const handed = (this.device.handed[index] ??= []);
    const from = this.#seen[index] ?? 0;
    const count = (writer.readUsedIndex() - from) & 0xffff;
    if (this.#scribbled || this.#vrings[index]?.size !== writer.size) return;
    for (let n = 1; n <= Math.min(count, writer.size); n++) {
      const id = writer.readUsedId((from + count - n) & 0xffff);
      if (id >= writer.size) throw new Error(`ring ${index} of ${writer.size} gave back ${id}`);
    }
    // A ring that failed gave back one chain that no device has seen.
    if (this.#failed.has(index)) return;
    if (count > handed.length) {
      throw new Error(`ring ${index} gave back ${count} chains of the ${handed.length} that it had`);
    }
    for (let n = 0; n < Math.min(count, writer.size); n++) {
      const at = (from + count - 1 - n) & 0xffff;
      const chain = handed[count - 1 - n];
      const id = writer.readUsedId(at);
      if (chain?.id !== id) throw new Error(`ring ${index} gave back ${id}, not ${chain?.id ?? -1}`);
    }
    handed.splice(0, count);
    this.#seen[index] = (from + count) & 0xffff;
  }
}
