// The smallest backend a balloon driver can live with: it notes what it is told, keeps the set of ballooned pages and
// zeroes a page when it enters it. It looks into the frontend's own guest memory, by the regions it was told of.
import { closeFd } from '../../src/os/fd.js';
import { createEventFd, drainEvent, signalEvent } from '../../src/os/eventfd.js';
import { Poller, READABLE } from '../../src/os/poller.js';
import { Signal } from '../support/deadline.js';
import { PAGE_BYTES, type GuestRam } from '../support/guest-ram.js';
import { F_EVENT_IDX, F_RING_PACKED } from '../support/guest-ring.js';
import { WireSocket } from '../support/wire-socket.js';
import {
  BACKEND_CONFIG_CHANGE_MSG,
  NEED_REPLY_FLAG,
  PROTOCOL_F,
  REPLY_FLAG,
  REQUEST,
  VERSION,
  bits,
  concat,
  hasBit,
  readU32,
  readU64,
  requestName,
  u32s,
  u64s,
  type WireMessage,
} from '../support/wire.js';
import { NaivePackedRing, NaiveSplitRing, type NaiveChain, type NaiveRing } from './naive-rings.js';

const EMPTY = new Uint8Array(0);
const STATS_QUEUE = 2;

interface Queue {
  size: number;
  base: number;
  areas: { descriptorGpa: number; driverGpa: number; deviceGpa: number } | null;
  kickFd: number | null;
  callFd: number | null;
  poller: Poller | null;
  ring: NaiveRing | null;
  held: NaiveChain | null;
}

export interface NaiveOptions {
  features: bigint;
  protocolFeatures?: bigint;
}

export class NaiveBackend {
  /** "NAME", "NAME(index)" or "NAME(index, value)", and how many fds came, in order of arrival. */
  readonly log: string[] = [];
  readonly ballooned = new Set<number>();
  readonly reported: { gpa: number; len: number }[] = [];
  readonly stats: Uint8Array[] = [];
  readonly config = new Uint8Array(16);
  /** Requests to refuse. */
  readonly refused = new Set<number>();

  readonly #channelReplied = new Signal();
  #channelReplies = 0;
  readonly #socket: WireSocket;
  #channel: WireSocket | null = null;
  readonly #queues: Queue[] = [];
  #regions: { gpa: bigint; lenBytes: bigint; userAddress: bigint }[] = [];
  #acked = 0n;
  #statsWanted = false;

  constructor(
    fd: number,
    private readonly ram: GuestRam,
    private readonly options: NaiveOptions,
  ) {
    this.#socket = new WireSocket(fd, (message) => this.#serve(message));
  }

  /** Sends CONFIG_CHANGE_MSG, started or not. */
  changeConfig(targetPages: number): void {
    this.config.set(u32s(targetPages));
    void this.#channel?.sendMessage(BACKEND_CONFIG_CHANGE_MSG, VERSION | NEED_REPLY_FLAG, EMPTY);
  }

  /** Resolves when `count` of the messages sent by `changeConfig` have been answered. */
  async waitChannelReplies(count: number): Promise<void> {
    await this.#channelReplied.until(
      () => (this.#channelReplies >= count ? true : null),
      5000,
      () => `${this.#channelReplies} of ${count} replies came`,
    );
  }

  /** Gives the statistics buffer back as soon as it is here, which asks the guest for new ones. */
  askStats(): void {
    this.#statsWanted = true;
    this.#answerStats();
  }

  close(): void {
    this.#socket.close();
    this.#channel?.close();
    for (const queue of this.#queues.splice(0)) {
      queue.poller?.close();
      if (queue.kickFd !== null) closeFd(queue.kickFd);
      if (queue.callFd !== null) closeFd(queue.callFd);
    }
  }

  #queue(index: number): Queue {
    const none = { kickFd: null, callFd: null, poller: null, ring: null, held: null, areas: null };
    return (this.#queues[index] ??= { size: 0, base: 0, ...none });
  }

  #serve(message: WireMessage): void {
    const { request, payload, fds } = message;
    const words = new Uint32Array(payload.slice(0, payload.length & ~3).buffer);
    this.#note(request, words, fds.length);
    const reply = this.#act(request, payload, words, fds);
    for (const fd of fds.splice(0)) closeFd(fd);
    const ack = u64s(this.refused.has(request) ? 1n : 0n);
    const answer = reply ?? ((message.flags & NEED_REPLY_FLAG) !== 0 ? ack : null);
    if (answer !== null) void this.#socket.sendMessage(request, VERSION | REPLY_FLAG, answer);
  }

  #note(request: number, words: Uint32Array, fdCount: number): void {
    const name = requestName(request);
    const isRing = name.includes('VRING');
    const values = isRing ? [...words].slice(0, /ENABLE|NUM|_BASE/.test(name) ? 2 : 1) : [];
    this.log.push(`${name}${isRing ? `(${values.join(', ')})` : ''}${fdCount > 0 ? ` +${fdCount}` : ''}`);
  }

  #act(request: number, payload: Uint8Array, words: Uint32Array, fds: number[]): Uint8Array | null {
    const [index = 0, value = 0] = words;
    switch (request) {
      case REQUEST.GET_FEATURES:
        return u64s(this.options.features | bits(30));
      case REQUEST.SET_FEATURES:
        this.#acked = readU64(payload);
        return null;
      case REQUEST.GET_PROTOCOL_FEATURES:
        return u64s(this.options.protocolFeatures ?? bits(...Object.values(PROTOCOL_F)));
      case REQUEST.GET_QUEUE_NUM:
        return u64s(5n);
      case REQUEST.GET_STATUS:
        return u64s(0n);
      case REQUEST.GET_MAX_MEM_SLOTS:
        return u64s(32n);
      case REQUEST.SET_BACKEND_REQ_FD:
        this.#channel = new WireSocket(fds.shift() ?? -1, () => {
          this.#channelReplies++;
          this.#channelReplied.raise();
        });
        return null;
      case REQUEST.ADD_MEM_REG:
        this.#addRegion(payload, 8);
        return null;
      case REQUEST.REM_MEM_REG:
        this.#regions = this.#regions.filter(({ gpa }) => gpa !== readU64(payload, 8));
        return null;
      case REQUEST.SET_MEM_TABLE:
        this.#regions = [];
        for (let i = 0; i < index; i++) this.#addRegion(payload, 8 + 32 * i);
        return null;
      case REQUEST.SET_VRING_NUM:
        this.#queue(index).size = value;
        return null;
      case REQUEST.SET_VRING_BASE:
        this.#queue(index).base = value;
        return null;
      case REQUEST.SET_VRING_ADDR:
        this.#queue(index).areas = {
          descriptorGpa: this.#translate(readU64(payload, 8)),
          deviceGpa: this.#translate(readU64(payload, 16)),
          driverGpa: this.#translate(readU64(payload, 24)),
        };
        return null;
      case REQUEST.SET_VRING_KICK:
        this.#setKick(index, fds.shift() ?? createEventFd());
        return null;
      case REQUEST.SET_VRING_CALL: {
        const queue = this.#queue(index);
        if (queue.callFd !== null) closeFd(queue.callFd);
        queue.callFd = fds.shift() ?? null;
        return null;
      }
      case REQUEST.SET_VRING_ENABLE:
        if (value === 1) this.#drain(index);
        return null;
      case REQUEST.GET_VRING_BASE: {
        const queue = this.#queue(index);
        queue.poller?.close();
        queue.ring = null;
        queue.held = null;
        return u32s(index, queue.base);
      }
      case REQUEST.GET_CONFIG:
        return concat(payload.slice(0, 12), this.config.slice(index, index + value));
      case REQUEST.SET_CONFIG:
        this.config.set(payload.slice(12 + 4), index + 4);
        return null;
      default:
        return null;
    }
  }

  #addRegion(payload: Uint8Array, at: number): void {
    const [gpa, lenBytes, userAddress] = [0, 8, 16].map((field) => readU64(payload, at + field));
    this.#regions.push({ gpa: gpa ?? 0n, lenBytes: lenBytes ?? 0n, userAddress: userAddress ?? 0n });
  }

  #translate(address: bigint): number {
    const region = this.#regions.find(
      ({ userAddress, lenBytes }) => address >= userAddress && address < userAddress + lenBytes,
    );
    if (region === undefined) throw new Error(`no region for ${address.toString(16)}`);
    return Number(address - region.userAddress + region.gpa);
  }

  #setKick(index: number, kickFd: number): void {
    const queue = this.#queue(index);
    queue.poller?.close();
    if (queue.kickFd !== null) closeFd(queue.kickFd);
    queue.kickFd = kickFd;
    const Ring = hasBit(this.#acked, F_RING_PACKED) ? NaivePackedRing : NaiveSplitRing;
    if (queue.areas === null) throw new Error('SET_VRING_KICK before SET_VRING_ADDR');
    queue.ring = new Ring(this.ram, queue.areas, queue.size, hasBit(this.#acked, F_EVENT_IDX));
    queue.poller = new Poller(kickFd, READABLE, () => {
      drainEvent(kickFd);
      this.#drain(index);
    });
  }

  #drain(index: number): void {
    const queue = this.#queue(index);
    if (queue.ring === null) return;
    queue.ring.setKicks(true);
    for (let chain = queue.ring.pop(); chain !== null; chain = queue.ring.pop()) {
      queue.ring.setKicks(true);
      this.#serveChain(index, queue, chain);
    }
  }

  #serveChain(index: number, queue: Queue, chain: NaiveChain): void {
    const [first] = chain.buffers;
    if (first === undefined) throw new Error('an empty chain');
    if (first.writable) this.reported.push(...chain.buffers.map(({ gpa, len }) => ({ gpa, len })));
    else if (index === STATS_QUEUE) {
      this.stats.push(this.ram.read(first.gpa, first.len));
      queue.held = chain;
      this.#answerStats();
      return;
    } else {
      const pfns = this.ram.read(first.gpa, first.len);
      for (let at = 0; at < first.len; at += 4) this.#balloon(index, readU32(pfns, at));
    }
    this.#giveBack(queue, chain, 0);
  }

  #answerStats(): void {
    const queue = this.#queue(STATS_QUEUE);
    if (!this.#statsWanted || queue.held === null) return;
    this.#statsWanted = false;
    this.#giveBack(queue, queue.held, 0);
    queue.held = null;
  }

  #balloon(index: number, pfn: number): void {
    if (index === 1) {
      this.ballooned.delete(pfn);
      return;
    }
    this.ballooned.add(pfn);
    this.ram.write(pfn * PAGE_BYTES, new Uint8Array(PAGE_BYTES));
  }

  #giveBack(queue: Queue, chain: NaiveChain, len: number): void {
    if (queue.ring?.push(chain, len) === true && queue.callFd !== null) signalEvent(queue.callFd);
  }
}
