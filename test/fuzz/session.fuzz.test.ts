// A VMM and a guest that say and do anything, structured enough to get far. Nothing they do may end the process,
// leave something behind, or be felt by another VM. FUZZ_SEED=N replays what seed N said.
import t from 'tap';
import { FrontendRequest } from '../../protocol/vhost-user/requests.js';
import { deviceOptions } from '../../src/daemon/settings.js';
import { Vm } from '../../src/daemon/vm.js';
import { createEventFd, signalEvent } from '../../src/os/eventfd.js';
import { StateFile } from '../../src/memory/state-file.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { socketPair } from '../../src/os/socket.js';
import { Bystander, resources } from '../support/bystander.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import {
  concat,
  encodeConfig,
  encodeMemoryTable,
  encodeSingleRegion,
  encodeVringAddress,
  encodeVringState,
  NEED_REPLY_FLAG,
  NO_FD,
  REQUEST,
  u32s,
  u64s,
  VERSION,
  type WireRegion,
} from '../support/wire.js';
import { WireSocket } from '../support/wire-socket.js';

const MESSAGES = 3000;
const MILLISECONDS = 3000;
const QUEUES = 5;
const RING_SIZE = 16;
const RAM_BYTES = 8 * 2 ** 20;
const USER = 0x7f0000000000n;
/** Each ring's parts lie one page apart; buffers and tables behind them. */
const BUFFER_PAGE = 3 * QUEUES;

const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 32)) >>> 0;

/** Mulberry32. */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** Below 2^32. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let value = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return (value ^ (value >>> 14)) >>> 0;
  }

  below(end: number): number {
    return this.word() % end;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(choices: readonly [T, ...T[]]): T {
    return choices[this.below(choices.length)] ?? choices[0];
  }

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.word());
  }

  /** Numbers at which things go wrong, and others. */
  u64(): bigint {
    const near = BigInt(this.below(5) - 2);
    const value = this.pick([
      0n,
      1n << BigInt(this.below(64)),
      1n << 64n,
      USER + BigInt(this.below(RAM_BYTES)),
      BigInt(this.below(RAM_BYTES)),
      BigInt(this.word()),
    ]);
    return BigInt.asUintN(64, value + near);
  }

  u32(): number {
    return Number(BigInt.asUintN(32, this.u64()));
  }
}

interface Wire {
  request: number;
  payload: Uint8Array;
  fds: number[];
}

class Hostile {
  readonly ended: Promise<void>;
  #over = false;
  readonly #dice: Dice;
  readonly #ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  readonly #events = Array.from({ length: QUEUES }, () => createEventFd());
  readonly #small = createMemfd('small', 2 * PAGE_BYTES);
  readonly #channel = socketPair();
  readonly #socket: WireSocket;

  constructor(dice: Dice) {
    this.#dice = dice;
    const [ours, theirs] = socketPair();
    this.#socket = new WireSocket(theirs, ({ fds }) => fds.forEach(closeFd));
    const defaults = deviceOptions({}, null, 'hostile');
    const features = [...defaults.features, 'VIRTIO_F_RING_PACKED' as const];
    const options = { ...defaults, features, statsIntervalSeconds: 0 };
    const identity = { name: 'hostile', pid: 2 ** 22 + 1, socketPath: null, options };
    const handOver = { keeper: NO_KEEPER, state: StateFile.create(), found: null };
    this.ended = new Promise((resolve) => {
      const vm = new Vm(ours, identity, handOver, nothing, () => {
        this.#over = true;
        resolve();
      });
      vm.setTarget({ balloonBytes: dice.below(RAM_BYTES) });
    });
  }

  get over(): boolean {
    return this.#over || !this.#socket.isOpen;
  }

  /** Everything that makes a device run, in the right order. */
  async start(): Promise<void> {
    await this.#say({ request: REQUEST.SET_PROTOCOL_FEATURES, payload: u64s(0x1a62bn), fds: [] });
    await this.#say(this.#features());
    await this.#say({
      request: REQUEST.ADD_MEM_REG,
      payload: encodeSingleRegion(this.#region()),
      fds: [this.#ramFd],
    });
    for (let ring = 0; ring < QUEUES; ring++) {
      for (const message of this.#ringSetup(ring)) await this.#say(message);
    }
    for (let ring = 0; ring < QUEUES; ring++) {
      await this.#say({ request: REQUEST.SET_VRING_ENABLE, payload: encodeVringState(ring, 1), fds: [] });
    }
  }

  async message(): Promise<void> {
    const dice = this.#dice;
    const message = dice.pick([
      () => this.#features(),
      () => this.#memory(),
      () => dice.pick(this.#ringSetup(dice.below(QUEUES))),
      () => dice.pick(this.#ringSetup(dice.below(QUEUES))),
      () => this.#ringFds(),
      () => this.#state(),
      () => this.#config(),
      () => this.#anything(),
    ])();
    await this.#say(dice.chance(25) ? this.#mutated(message) : message);
  }

  /** What a guest does to its rings: mostly chains that could be, then a kick. */
  guestStep(): void {
    const dice = this.#dice;
    const ring = dice.below(QUEUES);
    const [descriptors, avail] = this.#areas(ring);
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
    const used = this.#ram.read(this.#areas(ring)[2] + 2, 2);
    const ahead = dice.chance(95) ? dice.below(RING_SIZE) : dice.word();
    const index = ((used[0] ?? 0) | ((used[1] ?? 0) << 8)) + ahead;
    for (let slot = 0; slot < RING_SIZE; slot++) {
      const head = dice.chance(98) ? dice.below(RING_SIZE) : dice.word();
      this.#ram.write(avail + 4 + 2 * slot, Uint8Array.of(head, head >>> 8));
    }
    this.#ram.write(avail + 2, Uint8Array.of(index, index >>> 8));
    signalEvent(this.#events[ring] ?? -1);
  }

  /** Bytes that are no message at all; they end the connection, or wait for more for ever. */
  async noise(): Promise<void> {
    await this.#socket.send(this.#dice.bytes(1 + this.#dice.below(40)), this.#someFds());
  }

  async close(): Promise<void> {
    this.#socket.close();
    await this.ended;
    for (const fd of [...this.#events, this.#small, ...this.#channel]) closeFd(fd);
    this.#ram.close();
  }

  get #ramFd(): number {
    return this.#ram.find(0, 1).file.fd;
  }

  async #say({ request, payload, fds }: Wire): Promise<void> {
    if (this.over) return;
    const flags = VERSION | (this.#dice.chance(50) ? NEED_REPLY_FLAG : 0);
    await this.#socket.sendMessage(request, flags, payload, fds);
  }

  #areas(ring: number): [descriptors: number, avail: number, used: number] {
    const first = 3 * ring * PAGE_BYTES;
    return [first, first + PAGE_BYTES, first + 2 * PAGE_BYTES];
  }

  #region(): WireRegion {
    return { gpa: 0n, lenBytes: BigInt(RAM_BYTES), userAddress: USER, mmapOffset: 0n };
  }

  #features(): Wire {
    const balloon = BigInt(this.#dice.below(64));
    const ring = this.#dice.pick([0n, 1n << 28n, 1n << 29n, 3n << 28n, 1n << 34n, (1n << 34n) | (3n << 28n)]);
    return {
      request: REQUEST.SET_FEATURES,
      payload: u64s(balloon | ring | (1n << 30n) | (1n << 32n)),
      fds: [],
    };
  }

  #memory(): Wire {
    const dice = this.#dice;
    const region = dice.chance(60)
      ? this.#region()
      : { gpa: dice.u64(), lenBytes: dice.u64(), userAddress: dice.u64(), mmapOffset: dice.u64() };
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
      { request: REQUEST.SET_LOG_BASE, payload: u64s(BigInt(PAGE_BYTES), 0n), fds: [this.#small] },
    ]);
  }

  #ringSetup(ring: number): [Wire, ...Wire[]] {
    const [descriptors, available, used] = this.#areas(ring).map((gpa) => USER + BigInt(gpa));
    const kick = this.#events[ring] ?? -1;
    const addresses = { descriptors: descriptors ?? 0n, available: available ?? 0n, used: used ?? 0n };
    const flags = this.#dice.below(2);
    const payload = encodeVringAddress(ring, { ...addresses, flags });
    return [
      { request: REQUEST.SET_VRING_NUM, payload: encodeVringState(ring, RING_SIZE), fds: [] },
      {
        request: REQUEST.SET_VRING_BASE,
        payload: encodeVringState(ring, this.#dice.below(RING_SIZE)),
        fds: [],
      },
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
    const ring = this.#dice.below(QUEUES);
    const on = this.#dice.chance(80) ? 1 : 0;
    return this.#dice.pick<Wire>([
      { request: REQUEST.SET_VRING_ENABLE, payload: encodeVringState(ring, on), fds: [] },
      { request: REQUEST.SET_VRING_ENABLE, payload: encodeVringState(ring, on), fds: [] },
      { request: REQUEST.GET_VRING_BASE, payload: encodeVringState(ring, 0), fds: [] },
      { request: REQUEST.RESET_DEVICE, payload: u64s(), fds: [] },
      { request: REQUEST.RESET_OWNER, payload: u64s(), fds: [] },
      { request: REQUEST.SET_STATUS, payload: u64s(BigInt(this.#dice.below(16))), fds: [] },
      { request: REQUEST.SET_BACKEND_REQ_FD, payload: u64s(), fds: [this.#channel[0]] },
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
          const value = u64s(dice.u64());
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
    const all = [...this.#events, this.#small, this.#ramFd, ...this.#channel];
    const count = this.#dice.chance(3) ? 9 : this.#dice.pick([0, 0, 1, 1, 2, 8]);
    return Array.from({ length: count }, () => all[this.#dice.below(all.length)] ?? -1);
  }

  #descriptor(): Uint8Array {
    const dice = this.#dice;
    const inRam = BigInt(BUFFER_PAGE * PAGE_BYTES + dice.below(16 * PAGE_BYTES));
    const gpa = dice.chance(80) ? inRam & ~3n : dice.u64();
    const lenBytes = dice.chance(80) ? 4 * dice.below(64) : dice.u32();
    const flags = dice.chance(70) ? dice.pick([0, 0, 1, 2]) : dice.word() & 0xffff;
    const next = dice.chance(90) ? dice.below(RING_SIZE) : dice.word() & 0xffff;
    return concat(u64s(gpa), u32s(lenBytes, (flags | (next << 16)) >>> 0));
  }
}

function nothing(): void {
  // Events are for operators.
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

void t.test('a VMM and a guest that do anything', async (t) => {
  t.comment(`FUZZ_SEED=${seed}`);
  const dice = new Dice(seed);
  const bystander = await Bystander.start();
  const before = resources();
  const end = Date.now() + MILLISECONDS;
  let sessions = 0;
  let hostile: Hostile | null = null;
  let messages = 0;
  for (; messages < MESSAGES && Date.now() < end; messages++) {
    if (hostile === null) {
      hostile = new Hostile(dice);
      sessions++;
      await hostile.start();
    }
    await hostile.message();
    if (dice.chance(50)) hostile.guestStep();
    if (dice.chance(10)) await turn();
    if (dice.chance(3)) await hostile.start();
    if (dice.below(1000) === 0) await hostile.noise();
    if (hostile.over || dice.below(500) === 0) {
      await hostile.close();
      hostile = null;
    }
    if (messages % 300 === 0) await bystander.works();
  }
  await hostile?.close();
  await bystander.works();
  t.same(resources(), before, 'nothing is left open or mapped');
  await bystander.close();
  t.comment(`${messages} messages in ${sessions} sessions`);
});
