import { VirtioFeature, hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { DESC_BYTES, MAX_QUEUE_SIZE } from '../../protocol/virtio/ring-split.js';
import { VHOST_VRING_F_LOG, type VringAddress } from '../../protocol/vhost-user/payloads.js';
import { closeFd } from '../os/fd.js';
import { EventWatch, isEventFd, signalEvent } from '../os/eventfd.js';
import { DriverError, FrontendError } from '../memory/errors.js';
import type { GuestMemory, GuestSlice } from '../memory/guest-memory.js';
import type { Chain } from '../virtqueue/chain.js';
import type { Device } from '../virtqueue/device.js';
import type { Queue } from '../virtqueue/queue.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import type { DirtyLog } from './dirty-log.js';
import { openQueue } from './ring-place.js';
import { hex, MAX_REASON, type VringRecord } from './session-record.js';
import type { Seat } from './turns.js';

/**
 * What is taken before other VMs get their turn: chains, and bytes of their descriptors and readable buffers. An
 * inflate as Linux makes it has 1 KiB; 64 of the longest would keep the others waiting for a second.
 */
const CHAINS_PER_DRAIN = 64;
const BYTES_PER_DRAIN = 32 * 1024;

/** A chain that the device has handled. */
interface Done {
  chain: Chain;
  writtenBytes: number;
}

/** What a vring needs of its session. */
export interface VringContext {
  readonly memory: GuestMemory;
  readonly device: Device;
  readonly features: FeatureBits;
  readonly dirtyLog: DirtyLog | null;
  /** Its place among the VMs. */
  readonly seat: Seat;
  /** Rings are served: the device is started. */
  readonly running: boolean;
  /** Indices of the queues the driver configured, ascending. */
  readonly configured: readonly number[];
  /** Queues that the VMM has; undefined: that is not known. */
  readonly present?: number | undefined;
  /**
   * Whether all of guest memory is still there. When it is not, the device is stopped, and what was read of the memory
   * last must not be acted upon.
   */
  intact(): boolean;
  /** The ring broke a rule and is stopped. */
  ringFailed(index: number, error: Error): void;
  /** Chains were given back, so long after the kick that woke us. */
  kickAcked(ms: number): void;
}

/**
 * One virtqueue of a session: what the frontend said of it, its eventfds, and the path from a kick to a call.
 *
 * A kick may come before the ring is enabled or before the queue's role is known; it is not lost, since drain()
 * runs again whenever one of these changes.
 */
export class Vring {
  readonly index: number;
  readonly #context: VringContext;
  size = 0;
  base = 0;
  enabled = false;
  /** Since the ring got its kick fd: wake-ups, and chains taken. */
  kicks = 0;
  served = 0;
  #address: VringAddress | null = null;
  #kick: { fd: number; watch: EventWatch } | null = null;
  #callFd = -1;
  #errFd = -1;
  #queue: Queue | null = null;
  #broken: Error | null = null;
  #again: NodeJS.Immediate | null = null;
  /** Chains that the device is not done with, and what was wrong with the one after them. */
  #held: { done: Done[]; error: Error | null } | null = null;
  /** When a kick came whose chains were not given back yet; 0: there is none. */
  #kickedAt = 0;

  constructor(index: number, context: VringContext) {
    this.index = index;
    this.#context = context;
  }

  /** The driver set it up: it has a size, addresses and a kick. */
  get configured(): boolean {
    return this.size > 0 && this.#address !== null && this.#kick !== null;
  }

  get hasCall(): boolean {
    return this.#callFd >= 0;
  }

  /** Chains seen since the ring was attached came from somewhere: the driver has moved it since it was zeroed. */
  get advanced(): boolean {
    return this.#queue !== null && this.#queue.base !== freshBase(this.#context.features);
  }

  setSize(size: number): void {
    this.#refuseWhileAttached('SET_VRING_NUM');
    if (size < 1 || size > MAX_QUEUE_SIZE)
      throw new FrontendError(`queue size ${size} is not between 1 and ${MAX_QUEUE_SIZE}`);
    this.size = size;
  }

  setBase(base: number): void {
    this.#refuseWhileAttached('SET_VRING_BASE');
    this.base = base;
    this.#position.fill(base);
  }

  setAddress(address: VringAddress): void {
    const old = this.#address;
    const moved =
      old?.descriptor !== address.descriptor ||
      old.available !== address.available ||
      old.used !== address.used;
    // A migrating frontend sends the same addresses again with VHOST_VRING_F_LOG set or cleared.
    if (moved) this.#refuseWhileAttached('SET_VRING_ADDR');
    this.#address = address;
  }

  /** Takes `fd` over: the ring starts ("a ring is started when the back-end receives a kick fd"). */
  setKick(fd: number): void {
    requireEventFd(fd, 'kick');
    const watch = new EventWatch(fd, () => {
      this.kicks++;
      // One that comes before the device is started waits for the VMM.
      if (this.#kickedAt === 0 && this.#context.running) this.#kickedAt = performance.now();
      this.drain();
    });
    this.#closeKick();
    this.#kick = { fd, watch };
    this.#broken = null;
    this.kicks = 0;
    this.served = 0;
  }

  /**
   * Takes `fd` over; -1 for none. A ring that is served calls at once: the VMM may have looked at the eventfd before this one
   * for the last time when an answer went there, and a driver that waits for this answer sends nothing that would bring another.
   */
  setCall(fd: number): void {
    if (fd >= 0) requireEventFd(fd, 'call');
    if (this.#callFd >= 0) closeFd(this.#callFd);
    this.#callFd = fd;
    if (this.#queue !== null) this.call();
  }

  /** Takes `fd` over; -1 for none. A ring that is broken says so at once. */
  setErr(fd: number): void {
    if (fd >= 0) requireEventFd(fd, 'err');
    if (this.#errFd >= 0) closeFd(this.#errFd);
    this.#errFd = fd;
    if (this.#broken !== null) this.#signalError();
  }

  record(keeper: FdKeeper): VringRecord {
    const address = this.#address;
    return {
      size: this.size,
      base: this.base,
      enabled: this.enabled,
      address:
        address === null
          ? null
          : {
              flags: address.flags,
              descriptor: hex(address.descriptor),
              used: hex(address.used),
              available: hex(address.available),
              log: hex(address.log),
            },
      kick: this.#kick === null ? null : keeper.nameOf(this.#kick.fd),
      call: keeper.nameOf(this.#callFd),
      err: keeper.nameOf(this.#errFd),
      broken: this.#broken?.message.slice(0, MAX_REASON) ?? null,
    };
  }

  /** As a process that is gone had it; `fdOf` hands over the fd of a name. */
  restore(
    { size, base, enabled, address, kick, call, err, broken }: VringRecord,
    fdOf: (name: string) => number,
  ): void {
    this.size = size;
    this.base = base;
    this.enabled = enabled;
    if (address !== null) {
      this.#address = {
        index: this.index,
        flags: address.flags,
        descriptor: BigInt(address.descriptor),
        used: BigInt(address.used),
        available: BigInt(address.available),
        log: BigInt(address.log),
      };
    }
    if (kick !== null) this.setKick(fdOf(kick));
    if (call !== null) this.setCall(fdOf(call));
    if (err !== null) this.setErr(fdOf(err));
    if (broken === null) return;
    // The driver was told.
    this.#broken = new DriverError(broken);
    this.#kick?.watch.close();
  }

  /** Interrupts the driver, whether or not there is something for it. */
  call(): void {
    if (this.#callFd >= 0) signalEvent(this.#callFd);
  }

  /** Begins to look at the ring, so that `advanced` is known; drain() serves it. */
  attach(): void {
    if (this.#queue !== null || this.#broken !== null || !this.configured) return;
    try {
      const { memory, features } = this.#context;
      const place = { size: this.size, address: this.#address, position: this.#position };
      this.#queue = openQueue(place, memory, features, (slice, offset, lenBytes) =>
        this.#logWrite(slice, offset, lenBytes),
      );
      this.#context.intact();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Lets go of the ring; the next attach() resumes where this one ended. */
  detach(): void {
    if (this.#again !== null) clearImmediate(this.#again);
    this.#again = null;
    this.#kickedAt = 0;
    if (this.#queue === null) return;
    this.base = this.#queue.base;
    this.#queue.close();
    this.#queue = null;
    this.#held = null;
    this.#context.device.forget(this.index);
  }

  /** vhost-user: "stop ring upon receiving VHOST_USER_GET_VRING_BASE". Returns the base. */
  stop(): number {
    this.detach();
    this.#closeKick();
    return this.base;
  }

  /** Everything but the call and err fds back to the beginning. */
  reset(): void {
    this.stop();
    this.size = 0;
    this.base = 0;
    this.#position.fill(0);
    this.enabled = false;
    this.#address = null;
    this.#broken = null;
  }

  /** Stops watching fds that stay open. */
  letGo(): void {
    this.#kick?.watch.close();
  }

  close(): void {
    this.reset();
    this.setCall(-1);
    this.setErr(-1);
  }

  /** Serves what the driver made available, when it is the VM's turn: kick, chains, device, used, call. */
  drain(): void {
    this.#context.seat.run(this.#drainNow);
  }

  readonly #drainNow = (): void => {
    const { running, device, configured, present } = this.#context;
    if (!running || !this.enabled || this.#broken !== null || this.#held !== null) return;
    if (!device.serves(this.index, configured, present)) return;
    this.attach();
    const queue = this.#queue;
    if (queue === null) return;
    const budget = { chains: CHAINS_PER_DRAIN, bytes: BYTES_PER_DRAIN };
    try {
      do {
        queue.disarmNotify();
        if (!this.#serve(queue, budget)) return;
        if (budget.chains <= 0 || budget.bytes <= 0) {
          this.#again ??= setImmediate(() => {
            this.#again = null;
            this.drain();
          });
          return;
        }
      } while (queue.armNotify());
    } catch (error) {
      this.#fail(error);
    }
    this.#context.intact();
  };

  /** Gives back a chain that the device held. */
  complete(chain: Chain, writtenBytes: number): void {
    const queue = this.#queue;
    if (queue === null) return;
    queue.addUsed(chain, writtenBytes);
    this.#publish(queue);
    this.#context.intact();
  }

  /** Guest memory is gone, and with it the ring: the driver is told once, and not heard any more. */
  abandon(): void {
    if (!this.configured || this.#broken !== null) return;
    this.#broken = new FrontendError('guest memory is gone');
    this.#silence();
  }

  /** Every chain popped is given back or held. False: the device is not done with them. */
  #serve(queue: Queue, budget: { chains: number; bytes: number }): boolean {
    const { device } = this.#context;
    const done: Done[] = [];
    let error: Error | null = null;
    try {
      while (budget.chains > 0 && budget.bytes > 0) {
        const chain = queue.pop();
        if (chain === null) break;
        budget.chains--;
        budget.bytes -= sizeBytes(chain);
        this.served++;
        const entry = { chain, writtenBytes: 0 };
        const index = done.push(entry) - 1;
        const written = device.handle(this.index, chain);
        if (written === null) done.splice(index, 1);
        else entry.writtenBytes = written;
      }
    } catch (thrown) {
      error = asError(thrown);
    }
    if (!this.#context.intact()) return false;
    const held = { done, error };
    this.#held = held;
    const now = device.flush(this.index, () => {
      if (this.#held === held) this.#release(queue, held);
    });
    if (!now) return false;
    this.#held = null;
    this.#giveBack(queue, held);
    return true;
  }

  /** The device is done with what it was handed. */
  #release(queue: Queue, held: { done: Done[]; error: Error | null }): void {
    this.#held = null;
    try {
      this.#giveBack(queue, held);
    } catch (error) {
      this.#fail(error);
    }
    this.drain();
  }

  #giveBack(queue: Queue, { done, error }: { done: Done[]; error: Error | null }): void {
    for (const { chain, writtenBytes } of done) queue.addUsed(chain, writtenBytes);
    this.#publish(queue);
    if (this.#kickedAt > 0) {
      if (done.length > 0) this.#context.kickAcked(performance.now() - this.#kickedAt);
      this.#kickedAt = 0;
    }
    if (error !== null) throw error;
  }

  #publish(queue: Queue): void {
    if (queue.publish()) this.call();
  }

  #fail(error: unknown): void {
    // What it complains of may be zeros where there was guest memory.
    if (!this.#context.intact()) return;
    this.#broken = asError(error);
    this.#silence();
    this.#context.ringFailed(this.index, this.#broken);
  }

  #signalError(): void {
    if (this.#errFd >= 0) signalEvent(this.#errFd);
  }

  #silence(): void {
    this.#signalError();
    this.detach();
    // A broken ring is not watched: its driver may kick as fast as it likes.
    this.#kick?.watch.close();
  }

  /** Of a packed ring (RingLayout.position). */
  get #position(): Uint32Array {
    return this.#context.memory.state.rings.subarray(2 * this.index, 2 * this.index + 2);
  }

  #logWrite(slice: GuestSlice, offset: number, lenBytes: number): void {
    const log = this.#context.dirtyLog;
    if (log === null || ((this.#address?.flags ?? 0) & VHOST_VRING_F_LOG) === 0) return;
    log.mark(slice.region.gpa + slice.offset + offset, lenBytes);
  }

  #refuseWhileAttached(request: string): void {
    if (this.#queue !== null) throw new FrontendError(`${request} for ring ${this.index} while it runs`);
  }

  #closeKick(): void {
    if (this.#kick === null) return;
    this.#kick.watch.close();
    closeFd(this.#kick.fd);
    this.#kick = null;
  }
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** Where a ring stands that its driver has just made: index 0, in a packed ring with both wrap counters 1. */
function freshBase(features: FeatureBits): number {
  return hasFeature(features, VirtioFeature.VIRTIO_F_RING_PACKED) ? 0x80008000 : 0;
}

/** Of its descriptors and of the buffers that the device reads. */
function sizeBytes({ segments }: Chain): number {
  return segments.reduce((sum, { writable, lenBytes }) => sum + DESC_BYTES + (writable ? 0 : lenBytes), 0);
}

function requireEventFd(fd: number, role: string): void {
  if (!isEventFd(fd)) throw new FrontendError(`the ${role} fd is not an eventfd`);
}
