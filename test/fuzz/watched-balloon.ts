import type { BalloonQueue } from '../../protocol/virtio/balloon.js';
import { BALLOON_F } from '../support/balloon-driver.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { concat, hasBit } from '../support/wire.js';
import type { Balloon } from '../../src/balloon/balloon.js';
import { queueRole } from '../../src/balloon/queue-roles.js';
import type { Chain } from '../../src/virtqueue/chain.js';
import type { Device } from '../../src/virtqueue/device.js';
import type { PageOwners } from './page-owners.js';
import type { WatchedMemory } from './watched-memory.js';

/**
 * The balloon between its rings and one who writes down what it was given: pages by what the device itself read,
 * chains in the order in which it got them.
 */
export class WatchedBalloon implements Device {
  meddle: () => void = () => undefined;
  /** Told of each chain that the device is handed, before it is, and when it may give back all that it was handed. */
  onChain: (queue: number, chain: Chain) => void = () => undefined;
  onFlush: (queue: number) => void = () => undefined;
  /** Told of what the driver gives up, or reports free, before it can be discarded: guest addresses. */
  onGiven: (from: number, end: number) => void = () => undefined;
  /** Chains that were handed over and have to come back, by queue. */
  readonly handed: Chain[][] = [];
  readonly #balloon: Balloon;
  readonly #memory: WatchedMemory;
  readonly #owners: PageOwners;
  readonly #roles: (BalloonQueue | null)[] = [];
  /** Of the drain at hand, by queue. */
  readonly #told = new Map<number, { pfns: number[]; at: number }>();
  /** How often a queue was let go of. */
  readonly #forgotten: number[] = [];
  #acked = 0n;

  constructor(balloon: Balloon, memory: WatchedMemory, owners: PageOwners) {
    this.#balloon = balloon;
    this.#memory = memory;
    this.#owners = owners;
  }

  get offeredFeatures(): bigint {
    return this.#balloon.offeredFeatures;
  }

  get queueCount(): number {
    return this.#balloon.queueCount;
  }

  get leastQueues(): number {
    return this.#balloon.leastQueues;
  }

  readConfig(offset: number, lenBytes: number): Uint8Array {
    return this.#balloon.readConfig(offset, lenBytes);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.#balloon.writeConfig(offset, bytes);
  }

  setFeatures(acked: bigint): void {
    this.#acked = acked;
    this.#balloon.setFeatures(acked);
  }

  start(resumed: boolean): void {
    this.#balloon.start(resumed);
  }

  stop(): void {
    this.#roles.length = 0;
    this.#balloon.stop();
  }

  serves(queue: number, configured: readonly number[]): boolean {
    const serves = this.#balloon.serves(queue, configured);
    // What the role was when the ring was served first stays so.
    if (serves) this.#roles[queue] ??= queueRole(queue, this.#acked, configured);
    return serves;
  }

  forget(queue: number): void {
    this.handed[queue] = [];
    this.#forgotten[queue] = (this.#forgotten[queue] ?? 0) + 1;
    this.#told.delete(queue);
    this.#balloon.forget(queue);
  }

  handle(queue: number, chain: Chain): number | null {
    this.onChain(queue, chain);
    this.meddle();
    const read: Uint8Array[] = [];
    this.#memory.onRead = (bytes) => read.push(bytes);
    (this.handed[queue] ??= []).push(chain);
    const role = this.#roles[queue];
    if (role === 'reporting') this.#reported(queue, chain);
    try {
      const written = this.#balloon.handle(queue, chain);
      if (role === 'inflate' || role === 'deflate') this.#toldOf(queue, role, concat(...read));
      return written;
    } finally {
      this.#memory.onRead = () => undefined;
      this.meddle();
    }
  }

  flush(queue: number, done: () => void): boolean {
    this.onFlush(queue);
    const told = this.#told.get(queue);
    this.#told.delete(queue);
    const role = this.#roles[queue];
    const forgotten = this.#forgotten[queue];
    const acked = (): void => {
      // A ring that was let go of gives nothing back.
      if (told === undefined || this.#forgotten[queue] !== forgotten) return;
      if (role === 'reporting') this.#owners.endReport(told.pfns);
      else if (role === 'deflate' || !hasBit(this.#acked, BALLOON_F.MUST_TELL_HOST)) {
        this.#owners.take(told.pfns, told.at);
      }
    };
    const now = this.#balloon.flush(queue, () => {
      acked();
      this.meddle();
      done();
    });
    if (now) acked();
    this.meddle();
    return now;
  }

  interrupt(idle: () => void): boolean {
    return this.#balloon.interrupt(idle);
  }

  release(idle: () => void): boolean {
    return this.#balloon.release(idle);
  }

  goOn(): void {
    this.#balloon.goOn();
  }

  saveState(): Uint8Array {
    return this.#balloon.saveState();
  }

  loadState(state: Uint8Array): void {
    this.#balloon.loadState(state);
  }

  #toldOf(queue: number, role: 'inflate' | 'deflate', bytes: Uint8Array): void {
    const pfns = [...new Uint32Array(bytes.slice(0, bytes.length & ~3).buffer)];
    if (role === 'inflate') {
      this.#owners.give(pfns);
      for (const pfn of pfns) this.onGiven(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES);
    }
    this.#add(queue, pfns);
  }

  #reported(queue: number, { segments }: Chain): void {
    for (const { gpa, lenBytes, writable } of segments) {
      if (!writable) return;
      this.onGiven(gpa, gpa + lenBytes);
      const pfns = this.#owners.within(gpa / PAGE_BYTES, (gpa + lenBytes) / PAGE_BYTES);
      this.#owners.report(pfns);
      this.#add(queue, pfns);
    }
  }

  #add(queue: number, pfns: number[]): void {
    const told = this.#told.get(queue) ?? { pfns: [], at: 0 };
    this.#told.set(queue, told);
    for (const pfn of pfns) told.pfns.push(pfn);
    told.at = this.#owners.clock();
  }
}
