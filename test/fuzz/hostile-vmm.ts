// A VMM that says anything, structured enough to get far, and its guest.
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { FrontendRequest } from '../../protocol/vhost-user/requests.js';
import { deviceOptions } from '../../src/daemon/settings.js';
import type { DeviceHandOver } from '../../src/vm/device-owner.js';
import type { VmDevice } from '../../src/vm/device.js';
import { vmView } from '../../src/vm/view.js';
import { RefusedError } from '../../src/control/fleet.js';
import type { Vm } from '../../src/vm/vm.js';
import { serveDevice } from '../support/served-vm.js';
import { createEventFd, signalEvent } from '../../src/os/eventfd.js';
import { StateFile } from '../../src/memory/state-file.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { socketPair } from '../../src/os/socket.js';
import { Turns, type Seat } from '../../src/vhost-user/turns.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import {
  BACKEND_CONFIG_CHANGE_MSG,
  concat,
  encodeConfig,
  encodeMemoryTable,
  encodeMessage,
  encodeSingleRegion,
  encodeVringAddress,
  encodeVringState,
  NEED_REPLY_FLAG,
  NO_FD,
  REPLY_FLAG,
  REQUEST,
  u32s,
  u64s,
  VERSION,
  type WireRegion,
} from '../support/wire.js';
import type { Dice } from './dice.js';
import { turn, turns, until } from './fuzzer.js';
import { RawPeer } from './raw-peer.js';
import { StateStreams } from './state-streams.js';

const QUEUES = 5;
const RING_SIZE = 16;
const RAM_BYTES = 8 * 2 ** 20;
const USER = 0x7f0000000000n;
/** Each ring's parts lie one page apart; buffers and tables behind them. */
const BUFFER_PAGE = 3 * QUEUES;
/** QEMU's protocol features, and those that nobody has. */
const PROTOCOL_FEATURES = 0x9a62bn;
const DESC_AVAIL = 0x80;
/** More than what a peer may leave unread, of the longest replies and of the shortest messages. */
const FLOOD = 900;
const NAGS = 6000;
const LONGEST_CONFIG_BYTES = 256;
const REPLY_ACK = 1n << 3n;
/** What the kernel passes in one message. */
const MOST_FDS = 253;
/** No process has it, so that nothing is learnt of the "VMM" by looking at this very process. */
const NOBODY = 2 ** 22 + 1;

interface Wire {
  request: number;
  payload: Uint8Array;
  fds: number[];
}

export class HostileVmm {
  readonly #dice: Dice;
  readonly #ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  readonly #events = Array.from({ length: QUEUES }, () => createEventFd());
  readonly #small = createMemfd('small', 2 * PAGE_BYTES);
  readonly #channel = socketPair();
  readonly #channelPeer: RawPeer;
  readonly #states: StateStreams;
  readonly #odd: number[];
  readonly #peer: RawPeer;
  readonly #vm: Vm;
  readonly #device: VmDevice;
  /** Takes from the time that there is for all, which passes quickly then. */
  readonly #neighbour: Seat | null = null;
  #time = 0;
  #cut = false;
  #ended = false;
  #packed = false;

  constructor(dice: Dice) {
    this.#dice = dice;
    this.#states = new StateStreams(dice);
    const [ours, theirs] = socketPair();
    this.#peer = new RawPeer(theirs);
    this.#channelPeer = new RawPeer(this.#channel[1]);
    this.#odd = ['/dev/null', '/dev/zero', '/proc/self/exe', '/tmp', '/proc/self/maps'].map((path) =>
      openSync(path, 'r'),
    );
    const defaults = deviceOptions({}, null, 'hostile');
    const features = [...defaults.features, 'VIRTIO_F_RING_PACKED' as const];
    const options = { ...defaults, features, statsIntervalSeconds: 0 };
    const identity = { name: 'hostile', pid: NOBODY, options };
    const handOver: DeviceHandOver = { keeper: NO_KEEPER, state: StateFile.create(), found: null };
    if (dice.chance(15)) {
      handOver.turns = new Turns(() => (this.#time += dice.below(12)));
      this.#neighbour = handOver.turns.seat();
    }
    const { vm, device } = serveDevice(
      ours,
      identity,
      handOver,
      () => undefined,
      () => (this.#ended = true),
    );
    this.#vm = vm;
    this.#device = device;
  }

  get over(): boolean {
    return this.#ended || !this.#peer.isOpen;
  }

  /** Everything that makes a device run, in the right order. */
  async start(): Promise<void> {
    await this.#tell({ request: REQUEST.SET_PROTOCOL_FEATURES, payload: u64s(PROTOCOL_FEATURES), fds: [] });
    if (this.#dice.chance(50)) {
      await this.#tell({ request: REQUEST.SET_BACKEND_REQ_FD, payload: u64s(), fds: [this.#channel[0]] });
    }
    await this.#tell(this.#features());
    await this.#tell({
      request: REQUEST.ADD_MEM_REG,
      payload: encodeSingleRegion(this.#region()),
      fds: [this.#ramFd],
    });
    for (let ring = 0; ring < QUEUES; ring++) {
      for (const message of this.#ringSetup(ring)) await this.#tell(message);
      const events = [REQUEST.SET_VRING_CALL, REQUEST.SET_VRING_ERR];
      for (const request of events) {
        const fd = this.#events[this.#dice.below(QUEUES)] ?? -1;
        await this.#tell({ request, payload: u64s(BigInt(ring)), fds: [fd] });
      }
    }
    for (let ring = 0; ring < QUEUES; ring++) {
      await this.#tell({ request: REQUEST.SET_VRING_ENABLE, payload: encodeVringState(ring, 1), fds: [] });
    }
  }

  /** One or a few messages, whole or in parts. */
  async speak(): Promise<void> {
    const dice = this.#dice;
    const messages = Array.from({ length: dice.chance(80) ? 1 : 2 + dice.below(5) }, () => {
      const message = this.#message();
      return dice.chance(25) ? this.#mutated(message) : message;
    });
    const bytes = concat(...messages.map((message) => this.#encode(message)));
    const fds = messages.flatMap((message) => message.fds).slice(0, MOST_FDS);
    if (messages.length === 1 && dice.chance(85)) {
      await this.#send(bytes, fds);
      return;
    }
    // The fds go with the first byte of a part, which need not be that of their message.
    const cuts = Array.from({ length: dice.below(4) }, () => dice.below(bytes.length)).sort((a, b) => a - b);
    const holder = dice.chance(70) ? 0 : dice.below(cuts.length + 1);
    for (const [n, from] of [0, ...cuts].entries()) {
      await this.#send(bytes.subarray(from, cuts[n]), n === holder ? fds : []);
      if (dice.chance(30)) await turns(1 + dice.below(3));
    }
  }

  /** What a guest does to its rings: mostly chains that could be, then a kick. */
  work(): void {
    const dice = this.#dice;
    this.#neighbour?.run(() => (this.#time += 50));
    if (this.#cut) return;
    const ring = dice.below(QUEUES);
    const [descriptors] = this.#areas(ring);
    for (let n = dice.below(4); n >= 0; n--) {
      this.#ram.write(descriptors + 16 * dice.below(RING_SIZE), this.#descriptor());
    }
    if (dice.chance(20)) {
      const table = concat(...Array.from({ length: 4 }, () => this.#descriptor()));
      this.#ram.write((BUFFER_PAGE + dice.below(4)) * PAGE_BYTES, table);
    }
    if (dice.chance(40)) {
      const pfns = u32s(
        ...Array.from({ length: 64 }, () => (dice.chance(90) ? dice.below(2048) : dice.u32())),
      );
      this.#ram.write((BUFFER_PAGE + dice.below(16)) * PAGE_BYTES, pfns);
    }
    if (dice.chance(5)) this.#ram.write(descriptors + 4 * dice.below(PAGE_BYTES / 4), dice.bytes(4));
    if (!this.#packed) this.#makeAvailable(ring);
    signalEvent(this.#events[ring] ?? -1);
  }

  /** Reads what it is told, or does not, and answers what it was never asked. */
  listen(): void {
    const dice = this.#dice;
    if (dice.chance(70)) this.#peer.read();
    if (dice.chance(30)) this.#channelPeer.read();
    if (dice.chance(20)) {
      const request = dice.chance(80) ? BACKEND_CONFIG_CHANGE_MSG : dice.below(12);
      const flags = VERSION | (dice.chance(80) ? REPLY_FLAG : 0);
      this.#channelPeer.send(encodeMessage(request, flags, dice.chance(90) ? u64s(0n) : dice.bytes(5)), []);
    }
  }

  /** What an operator may ask meanwhile. */
  command(): void {
    const dice = this.#dice;
    switch (dice.below(4)) {
      case 0:
        try {
          const bytes = dice.below(2 * RAM_BYTES);
          this.#vm.setTarget(dice.chance(50) ? { balloonBytes: bytes } : { memoryBytes: bytes });
        } catch (error) {
          if (!(error instanceof RefusedError)) throw error;
        }
        break;
      case 1:
        void this.#vm.setInhibited(dice.chance(50) ? 'fuzz' : null);
        break;
      case 2:
        void this.#device.refreshStats(1);
        break;
      default:
        JSON.stringify(vmView(this.#vm, null));
    }
  }

  /** Bytes that are no message at all; they end the connection, or wait for more for ever. */
  async noise(): Promise<void> {
    await this.#send(this.#dice.bytes(1 + this.#dice.below(40)), this.#someFds());
  }

  /** Asks, and reads no reply, or only then. */
  async flood(): Promise<void> {
    const dice = this.#dice;
    const payload = encodeConfig(0, new Uint8Array(LONGEST_CONFIG_BYTES));
    const bytes = encodeMessage(REQUEST.GET_CONFIG, VERSION, payload);
    for (let n = dice.below(FLOOD); n > 0 && !this.over; n--) {
      if (this.#peer.send(bytes, []) < bytes.length) await turns(5);
    }
    await turns(20);
    for (let n = dice.below(40); n > 0; n--) this.#peer.read();
  }

  /** Is told of one target after the other, and does not read that either. */
  async nag(): Promise<void> {
    const features = PROTOCOL_FEATURES & ~REPLY_ACK;
    await this.#tell({ request: REQUEST.SET_PROTOCOL_FEATURES, payload: u64s(features), fds: [] });
    await this.#tell({ request: REQUEST.SET_BACKEND_REQ_FD, payload: u64s(), fds: [this.#channel[0]] });
    await turns(5);
    if (this.over) return;
    for (let n = 0; n < NAGS; n++) this.#vm.setTarget({ balloonBytes: n % 2 === 0 ? 0 : PAGE_BYTES });
  }

  /** Takes its memory away: rings and buffers are gone. */
  cutMemory(): void {
    this.#cut = true;
    ftruncateSync(this.#ramFd, PAGE_BYTES * this.#dice.below(RAM_BYTES / PAGE_BYTES));
    for (const fd of this.#events) signalEvent(fd);
  }

  async close(): Promise<void> {
    if (!this.#ended && this.#dice.chance(20)) this.#vm.close();
    // A daemon that waits for a state looks at nothing else meanwhile.
    this.#states.close();
    this.#peer.close();
    await until(() => this.#ended, 'the end of the connection is seen');
    this.#channelPeer.close();
    for (const fd of [...this.#events, this.#small, this.#channel[0]]) closeFd(fd);
    this.#odd.forEach((fd) => closeSync(fd));
    this.#ram.close();
  }

  get #ramFd(): number {
    return this.#ram.find(0, 1).file.fd;
  }

  async #tell(message: Wire): Promise<void> {
    await this.#send(this.#encode(message), message.fds);
  }

  #encode({ request, payload }: Wire): Uint8Array {
    const dice = this.#dice;
    const flags = dice.chance(99) ? VERSION | (dice.chance(50) ? NEED_REPLY_FLAG : 0) : dice.u32();
    const lenBytes = dice.below(300) === 0 ? dice.pick([payload.length + 1, dice.u32()]) : payload.length;
    return encodeMessage(request, flags, payload, lenBytes);
  }

  async #send(bytes: Uint8Array, fds: readonly number[]): Promise<void> {
    let left = bytes;
    let unsent = fds;
    for (let tries = 0; left.length > 0 && tries < 20 && !this.over; tries++) {
      const sent = this.#peer.send(left, unsent);
      if (sent > 0) unsent = [];
      left = left.subarray(sent);
      if (left.length > 0) {
        this.#peer.read();
        await turn();
      }
    }
  }

  #message(): Wire {
    const dice = this.#dice;
    return dice.pick([
      () => this.#features(),
      () => this.#memory(),
      () => dice.pick(this.#ringSetup(dice.below(QUEUES))),
      () => dice.pick(this.#ringSetup(dice.below(QUEUES))),
      () => this.#ringFds(),
      () => this.#state(),
      () => this.#config(),
      () => this.#anything(),
    ])();
  }

  #areas(ring: number): [descriptors: number, avail: number, used: number] {
    const first = 3 * ring * PAGE_BYTES;
    return [first, first + PAGE_BYTES, first + 2 * PAGE_BYTES];
  }

  #makeAvailable(ring: number): void {
    const dice = this.#dice;
    const [, avail, device] = this.#areas(ring);
    const used = this.#ram.read(device + 2, 2);
    const ahead = dice.chance(95) ? dice.below(RING_SIZE) : dice.word();
    const index = ((used[0] ?? 0) | ((used[1] ?? 0) << 8)) + ahead;
    for (let slot = 0; slot < RING_SIZE; slot++) {
      const head = dice.chance(98) ? dice.below(RING_SIZE) : dice.word();
      this.#ram.write(avail + 4 + 2 * slot, Uint8Array.of(head, head >>> 8));
    }
    this.#ram.write(avail + 2, Uint8Array.of(index, index >>> 8));
  }

  #region(): WireRegion {
    return { gpa: 0n, lenBytes: BigInt(RAM_BYTES), userAddress: USER, mmapOffset: 0n };
  }

  #features(): Wire {
    const dice = this.#dice;
    const balloon = BigInt(dice.below(64));
    const ring = dice.pick([0n, 1n << 28n, 1n << 29n, 3n << 28n, 1n << 34n, (1n << 34n) | (3n << 28n)]);
    this.#packed = ring >> 34n !== 0n;
    const vhost = dice.pick([1n << 30n, 1n << 30n, 1n << 30n, (1n << 30n) | (1n << 26n), 0n]);
    return { request: REQUEST.SET_FEATURES, payload: u64s(balloon | ring | vhost | (1n << 32n)), fds: [] };
  }

  #memory(): Wire {
    const dice = this.#dice;
    const region = dice.chance(60)
      ? this.#region()
      : {
          gpa: dice.u64(),
          lenBytes: dice.u64(),
          userAddress: dice.u64(USER),
          mmapOffset: dice.pick([0n, dice.u64()]),
        };
    const part = { ...region, lenBytes: BigInt(2 * PAGE_BYTES), gpa: 1n << 32n, userAddress: 1n << 40n };
    const aligned = dice.chance(50) ? region : part;
    const fd = aligned === part ? this.#small : this.#ramFd;
    return dice.pick<Wire>([
      { request: REQUEST.ADD_MEM_REG, payload: encodeSingleRegion(aligned), fds: [fd] },
      { request: REQUEST.REM_MEM_REG, payload: encodeSingleRegion(aligned), fds: [] },
      { request: REQUEST.SET_MEM_TABLE, payload: encodeMemoryTable([this.#region()]), fds: [this.#ramFd] },
      {
        request: REQUEST.SET_MEM_TABLE,
        payload: encodeMemoryTable([this.#region(), part]),
        fds: [this.#ramFd, this.#small],
      },
      {
        request: REQUEST.SET_LOG_BASE,
        payload: u64s(
          dice.pick([BigInt(PAGE_BYTES), dice.u64()]),
          dice.pick([0n, BigInt(PAGE_BYTES), dice.u64()]),
        ),
        fds: [this.#small],
      },
      { request: REQUEST.SET_LOG_FD, payload: u64s(), fds: [this.#events[0] ?? -1] },
    ]);
  }

  #ringSetup(ring: number): [Wire, ...Wire[]] {
    const dice = this.#dice;
    const [descriptors, available, used] = this.#areas(ring).map((gpa) => USER + BigInt(gpa));
    const kick = this.#events[ring] ?? -1;
    const addresses = { descriptors: descriptors ?? 0n, available: available ?? 0n, used: used ?? 0n };
    const payload = encodeVringAddress(ring, { ...addresses, flags: dice.below(2) });
    const size = dice.chance(95) ? RING_SIZE : dice.u32();
    const base = this.#packed ? 0x80008000 : dice.below(RING_SIZE);
    const state = (num: number): Uint8Array => encodeVringState(ring, num >>> 0);
    return [
      { request: REQUEST.SET_VRING_NUM, payload: state(size), fds: [] },
      { request: REQUEST.SET_VRING_BASE, payload: state(dice.chance(95) ? base : dice.word()), fds: [] },
      { request: REQUEST.SET_VRING_ADDR, payload, fds: [] },
      { request: REQUEST.SET_VRING_KICK, payload: u64s(BigInt(ring)), fds: [kick] },
    ];
  }

  #ringFds(): Wire {
    const ring = BigInt(this.#dice.below(QUEUES));
    const fd = this.#events[this.#dice.below(QUEUES)] ?? -1;
    const request = this.#dice.pick([REQUEST.SET_VRING_KICK, REQUEST.SET_VRING_CALL, REQUEST.SET_VRING_ERR]);
    return this.#dice.chance(20)
      ? { request, payload: u64s(ring | NO_FD), fds: [] }
      : { request, payload: u64s(ring), fds: [fd] };
  }

  #state(): Wire {
    const dice = this.#dice;
    const ring = dice.below(QUEUES);
    const on = dice.chance(80) ? 1 : dice.pick([0, 0, 0, 2]);
    if (dice.chance(15)) return this.#states.message();
    return dice.pick<Wire>([
      { request: REQUEST.CHECK_DEVICE_STATE, payload: u64s(), fds: [] },
      { request: REQUEST.SET_VRING_ENABLE, payload: encodeVringState(ring, on), fds: [] },
      { request: REQUEST.SET_VRING_ENABLE, payload: encodeVringState(ring, on), fds: [] },
      { request: REQUEST.GET_VRING_BASE, payload: encodeVringState(ring, 0), fds: [] },
      { request: REQUEST.RESET_DEVICE, payload: u64s(), fds: [] },
      { request: REQUEST.RESET_OWNER, payload: u64s(), fds: [] },
      { request: REQUEST.SET_STATUS, payload: u64s(BigInt(dice.below(16))), fds: [] },
      { request: REQUEST.SET_BACKEND_REQ_FD, payload: u64s(), fds: [this.#channel[0]] },
      {
        request: dice.pick([
          REQUEST.GET_FEATURES,
          REQUEST.GET_PROTOCOL_FEATURES,
          REQUEST.GET_QUEUE_NUM,
          REQUEST.GET_MAX_MEM_SLOTS,
          REQUEST.GET_STATUS,
          REQUEST.SET_OWNER,
        ]),
        payload: u64s(),
        fds: [],
      },
    ]);
  }

  #config(): Wire {
    const offset = this.#dice.chance(80) ? this.#dice.below(20) : this.#dice.u32();
    const payload = encodeConfig(offset, this.#dice.bytes(this.#dice.below(20)));
    return { request: this.#dice.pick([REQUEST.GET_CONFIG, REQUEST.SET_CONFIG]), payload, fds: [] };
  }

  #anything(): Wire {
    const requests = Object.values(FrontendRequest);
    const request = requests[this.#dice.below(requests.length)] ?? 0;
    // A question that cannot be answered ends the connection: those of the right length are asked more often.
    const lenBytes = this.#dice.pick([0, 0, 8, 8, 12, 16, 40, this.#dice.below(100)]);
    return { request, payload: this.#dice.bytes(lenBytes), fds: this.#someFds() };
  }

  #mutated({ request, payload, fds }: Wire): Wire {
    const dice = this.#dice;
    const bytes = payload.slice();
    switch (dice.below(5)) {
      case 0:
        for (let n = dice.below(3); n >= 0; n--) bytes[dice.below(bytes.length || 1)] = dice.word();
        return { request, payload: bytes, fds };
      case 1:
        if (bytes.length >= 8) {
          const value = u64s(dice.u64(USER));
          bytes.set(value, 8 * dice.below(Math.floor(bytes.length / 8)));
        }
        return { request, payload: bytes, fds };
      case 2:
        return { request, payload: dice.chance(50) ? bytes.subarray(1) : concat(bytes, dice.bytes(4)), fds };
      case 3:
        return { request, payload, fds: this.#someFds() };
      default:
        return { request: dice.below(50), payload, fds };
    }
  }

  #someFds(): number[] {
    const all = [...this.#events, this.#small, this.#ramFd, this.#channel[0], ...this.#odd];
    const count = this.#dice.chance(3)
      ? this.#dice.pick([9, 40, MOST_FDS])
      : this.#dice.pick([0, 0, 1, 1, 2, 8]);
    return Array.from({ length: count }, () => all[this.#dice.below(all.length)] ?? -1);
  }

  #descriptor(): Uint8Array {
    const dice = this.#dice;
    const inRam = BigInt(BUFFER_PAGE * PAGE_BYTES + dice.below(16 * PAGE_BYTES));
    const gpa = dice.chance(80) ? inRam & ~3n : dice.u64();
    const lenBytes = dice.chance(80) ? 4 * dice.below(64) : dice.u32();
    const flags = dice.chance(70) ? dice.pick([0, 0, 1, 2]) : dice.word() & 0xffff;
    const next = dice.chance(90) ? dice.below(RING_SIZE) : dice.word() & 0xffff;
    // In a packed ring the id comes first; what makes a descriptor available is right for the first lap.
    const tail = this.#packed ? (next | ((flags | DESC_AVAIL) << 16)) >>> 0 : (flags | (next << 16)) >>> 0;
    return concat(u64s(gpa), u32s(lenBytes, tail));
  }
}
