// A VMM's side of vhost-user that says what a VMM says, in its order (vmm-orders), and demands what QEMU demands of replies.
import { closeFd } from '../../src/os/fd.js';
import { createEventFd, drainEvent, signalEvent } from '../../src/os/eventfd.js';
import { connectUnix, socketPair } from '../../src/os/socket.js';
import { BackendChannel, type ConfigChange, type Phase } from './backend-channel.js';
import { PATIENCE_MS, Signal, within } from './deadline.js';
import { GuestRam, describeRegion, type GuestRegion, type RegionOptions } from './guest-ram.js';
import { DESCRIPTOR_BYTES, type GuestRing } from './guest-ring.js';
import {
  NEED_REPLY_FLAG,
  PROTOCOL_F,
  REPLY_FLAG,
  REQUEST,
  VERSION,
  VHOST_USER_F_PROTOCOL_FEATURES,
  bits,
  encodeConfig,
  encodeMemoryTable,
  encodeSingleRegion,
  encodeVringAddress,
  encodeVringState,
  hasBit,
  readU32,
  readU64,
  requestName,
  u32s,
  u64s,
  type WireMessage,
} from './wire.js';
import { WireSocket } from './wire-socket.js';
import { QEMU, usualOrder, type ForQueues, type QueueStep, type Step, type VmmOrder } from './vmm-orders.js';

/** The protocol features QEMU acks when they are offered, as far as a balloon meets them. */
export const QEMU_PROTOCOL_FEATURES = QEMU.protocolFeatures;

export interface FrontendOptions {
  /** The socket's path, or a connected fd, which the frontend then owns. */
  socket: string | number;
  /** Guest memory, which the frontend then owns (default: 64 MiB in one region at 0). */
  ram?: GuestRam;
  /** QEMU's num_vqs (default 5). */
  queueCount?: number;
  /** QEMU's config_size in bytes (default 16). */
  configBytes?: number;
  /** The VMM that it stands for (default: that of `underOrder`, and no other). */
  order?: VmmOrder;
  /** Protocol features to ack of those offered (default: those of the order). */
  protocolFeatures?: bigint;
  /** Requests that carry need_reply once REPLY_ACK is acked (default: those of the order). */
  needReply?: ReadonlySet<number>;
  /** How long to wait for a reply (default 20 s). */
  timeoutMs?: number;
}

export interface RequestOptions {
  fds?: readonly number[];
  needReply?: boolean;
  /** Waits for a reply (default: as `needReply` says). */
  expectReply?: boolean;
}

/** One queue for `start`. `base` is what SET_VRING_BASE says (default: as of an unused ring). */
export interface QueueSetup {
  index: number;
  ring: GuestRing;
  base?: number;
}

/** The backend answered a request that needs a reply with something else than 0. */
export class Nack extends Error {
  constructor(
    readonly request: number,
    readonly value: bigint,
  ) {
    super(`${requestName(request)} was refused with ${value.toString()}`);
  }
}

interface QueueEvents {
  /** Stands in for the call eventfd until the driver has set up its own. */
  idleCallFd: number;
  errFd: number;
}

export class Frontend {
  readonly ram: GuestRam;
  readonly queueCount: number;
  readonly configBytes: number;
  /** What the backend did that would break QEMU or the specification. Tests assert that it is empty. */
  readonly protocolViolations: string[] = [];
  /** QEMU's copy of the config space: filled by GET_CONFIG, sent whole by SET_CONFIG. */
  readonly configCache: Uint8Array;
  offeredFeatures = 0n;
  offeredProtocolFeatures = 0n;
  ackedFeatures = 0n;
  ackedProtocolFeatures = 0n;
  /** What GET_QUEUE_NUM and GET_MAX_MEM_SLOTS said; null when they were not asked. */
  maxQueues: bigint | null = null;
  maxMemSlots: bigint | null = null;

  readonly order: VmmOrder;
  #socket: WireSocket;
  readonly #timeoutMs: number;
  readonly #wantedProtocolFeatures: bigint;
  readonly #needReply: ReadonlySet<number>;
  readonly #replies: WireMessage[] = [];
  readonly #replied = new Signal();
  readonly #queueEvents: QueueEvents[] = [];
  #turn: Promise<unknown> = Promise.resolve();
  #channel: BackendChannel | null = null;
  #phase: Phase = 'new';
  #queues: readonly QueueSetup[] = [];
  #announced = new Set<GuestRegion>();
  #closing = false;

  constructor(options: FrontendOptions) {
    this.ram = options.ram ?? new GuestRam([{ gpa: 0, lenBytes: 64 * 1024 * 1024 }]);
    this.queueCount = options.queueCount ?? 5;
    this.configBytes = options.configBytes ?? 16;
    this.configCache = new Uint8Array(this.configBytes);
    this.#timeoutMs = options.timeoutMs ?? PATIENCE_MS;
    this.order = options.order ?? usualOrder();
    this.#wantedProtocolFeatures = options.protocolFeatures ?? this.order.protocolFeatures;
    this.#needReply = options.needReply ?? this.order.needReply;
    this.#socket = this.#open(options.socket);
  }

  /** Resolves when the backend has dropped the connection, or after `close`. */
  get closed(): Promise<void> {
    return this.#socket.closed;
  }

  /** Like `closed`, but an error when it takes too long. */
  async waitClosed(timeoutMs = this.#timeoutMs): Promise<void> {
    await within(this.closed, timeoutMs, () => 'the backend kept the connection');
  }

  get isOpen(): boolean {
    return this.#socket.isOpen;
  }

  /** From the first SET_VRING_ENABLE(1) until the first SET_VRING_ENABLE(0). */
  get started(): boolean {
    return this.#phase === 'started';
  }

  /** The queues of the last `start`. */
  get queues(): readonly QueueSetup[] {
    return this.#queues;
  }

  /** Throws before `connect`, and when BACKEND_REQ was not negotiated. */
  get channel(): BackendChannel {
    if (this.#channel === null) throw new Error('there is no backend channel');
    return this.#channel;
  }

  get configChanges(): readonly ConfigChange[] {
    return this.channel.configChanges;
  }

  hasProtocolFeature(bit: number): boolean {
    return hasBit(this.ackedProtocolFeatures, bit);
  }

  // --- what a VMM does ---

  /** From the connection to the wait for the guest's driver. */
  async connect(): Promise<void> {
    await this.#begin(this.order.connect);
  }

  /** The device is unplugged, after its driver stopped: its channel ends, and the connection stays. */
  unplug(): void {
    this.#channel?.close();
    this.#channel = null;
  }

  /** Another device of the same kind is plugged in on this connection, after the first was unplugged. */
  async replug(): Promise<void> {
    this.#forget();
    await this.connect();
  }

  /**
   * Another connection for the same guest, whose driver runs and goes on: as after a restore, or a back-end that went away.
   * `restore` is done before the rings start.
   */
  async reconnect(socket: string | number, restore?: () => Promise<void>): Promise<void> {
    const queues = this.#queues.map((queue) => ({ ...queue, base: this.#readUsedIndex(queue) }));
    this.connectAgain(socket);
    await this.#begin(this.order.reconnect ?? this.order.connect);
    await restore?.();
    await this.start(this.ackedFeatures, queues);
  }

  /** Another connection for the same memory: a reboot of the guest, for VMMs that connect again then. `connect` follows. */
  connectAgain(socket: string | number): void {
    this.#forget();
    this.#socket.close();
    this.ackedProtocolFeatures = 0n;
    this.#socket = this.#open(socket);
  }

  /** What follows when the guest's driver is ready. The rings may already hold chains and have been kicked. */
  async start(ackedFeatures: bigint, queues: readonly QueueSetup[]): Promise<void> {
    this.ackedFeatures = ackedFeatures;
    this.#queues = queues;
    await this.#perform(this.order.start);
  }

  /** What follows when the guest resets the device. Returns the configured queues' bases by index. */
  async stop(): Promise<Map<number, number>> {
    return this.#halt(this.order.reset ?? this.order.pause);
  }

  /** The VM is paused. */
  async pause(): Promise<void> {
    const bases = await this.#halt(this.order.pause);
    this.#queues = this.#queues.map((queue) => ({ ...queue, base: bases.get(queue.index) ?? 0 }));
  }

  /** The VM goes on after a pause. */
  async resume(): Promise<void> {
    await this.#perform(this.order.resume);
  }

  /** GET_CONFIG; the default is what QEMU does at each read of the guest: all of it. */
  async getConfig(offset = 0, lenBytes = this.configBytes): Promise<Uint8Array> {
    const reply = await this.ask(REQUEST.GET_CONFIG, encodeConfig(offset, new Uint8Array(lenBytes)));
    if (reply.length === 0) throw new Error(`GET_CONFIG of ${lenBytes} bytes at ${offset} was refused`);
    if (readU32(reply) !== offset || readU32(reply, 4) !== lenBytes || reply.length !== 12 + lenBytes) {
      this.#violate(`GET_CONFIG of ${lenBytes} bytes at ${offset} answered for something else`);
    }
    const bytes = reply.slice(12);
    if (offset + bytes.length <= this.configBytes) this.configCache.set(bytes, offset);
    return bytes;
  }

  /** SET_CONFIG, as it is said. `flags`: 0 the guest writes, 1 live migration. */
  async setConfig(offset: number, bytes: Uint8Array, flags = 0): Promise<void> {
    await this.tell(REQUEST.SET_CONFIG, encodeConfig(offset, bytes, flags));
  }

  /** A guest's write of one field: changes the cached config space, of which QEMU sends all. */
  async writeConfigField(offset: number, value: number): Promise<void> {
    this.configCache.set(u32s(value), offset);
    if (this.order.config === 'whole') await this.setConfig(0, this.configCache);
    else await this.setConfig(offset, u32s(value));
  }

  /** Memory hotplug. Before the first start the region goes with the others. */
  async addRegion(options: RegionOptions): Promise<GuestRegion> {
    const region = this.ram.add(options);
    if (this.#phase !== 'new') await this.#sendMemory();
    return region;
  }

  /** Memory unplug: the backend is told first, then the region is unmapped. */
  async removeRegion(region: GuestRegion): Promise<void> {
    if (this.#announced.delete(region)) {
      if (this.hasProtocolFeature(PROTOCOL_F.CONFIGURE_MEM_SLOTS)) {
        await this.tell(REQUEST.REM_MEM_REG, encodeSingleRegion(describeRegion(region)));
      } else {
        await this.#sendTable(this.ram.regions.filter((other) => other !== region));
      }
    }
    this.ram.remove(region);
  }

  /** The backend is told that all memory goes, which stays mapped here. */
  async forgetMemory(): Promise<void> {
    for (const region of this.#announced) {
      await this.tell(REQUEST.REM_MEM_REG, encodeSingleRegion(describeRegion(region)));
    }
    this.#announced.clear();
  }

  /** Of VMMs that give the backend an err eventfd for each queue. */
  get hearsErrors(): boolean {
    return this.order.connect.some((step) => typeof step !== 'string' && step.say.includes('SET_VRING_ERR'));
  }

  /** How often the backend has written the queue's err eventfd since the last look. */
  takeRingErrors(index: number): number {
    const fd = this.#queueEvents[index]?.errFd;
    return fd === undefined ? 0 : drainEvent(fd);
  }

  /** Resolves when `count` CONFIG_CHANGE_MSGs have come in all. */
  async waitConfigChanges(count: number, timeoutMs = this.#timeoutMs): Promise<void> {
    await this.channel.waitConfigChanges(count, timeoutMs);
  }

  /** Reads no replies any more: another process has the returned socket, and asks on it from now on. */
  handOver(): number {
    return this.#socket.handOver();
  }

  /** Closes everything that is the frontend's: sockets, eventfds, the rings of the last start, guest memory. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#channel?.close();
    this.#socket.close();
    for (const { ring } of this.#queues) ring.close();
    for (const { idleCallFd, errFd } of this.#queueEvents.splice(0)) {
      closeFd(idleCallFd);
      closeFd(errFd);
    }
    for (const { fds } of this.#replies.splice(0)) fds.forEach(closeFd);
    this.ram.close();
  }

  // --- messages one by one ---

  /** Sends a request that always has a reply, and returns the reply's payload. */
  async ask(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    fds: readonly number[] = [],
  ): Promise<Uint8Array> {
    return (await this.#exchange(request, payload, fds, this.#asksForReply(request))).payload;
  }

  /** Sends a request without a reply of its own, with need_reply where QEMU sets it; throws Nack when refused. */
  async tell(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    fds: readonly number[] = [],
  ): Promise<void> {
    await this.request(request, payload, { fds, needReply: this.#asksForReply(request) });
  }

  #asksForReply(request: number): boolean {
    return this.hasProtocolFeature(PROTOCOL_F.REPLY_ACK) && this.#needReply.has(request);
  }

  /**
   * Any request. Returns the reply, or null when none was expected. A need_reply that is answered with another
   * u64 than 0 throws Nack; a reply with the wrong request or flags is an error, and so is an ended connection.
   */
  async request(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    options: RequestOptions = {},
  ): Promise<WireMessage | null> {
    const needReply = options.needReply ?? false;
    const fds = options.fds ?? [];
    if (!(options.expectReply ?? needReply)) {
      await this.#inTurn(() => this.#socket.sendMessage(request, VERSION, payload, fds));
      return null;
    }
    const reply = await this.#exchange(request, payload, fds, needReply);
    if (needReply) {
      if (reply.payload.length !== 8) this.#violate(`${requestName(request)} was not answered with a u64`);
      else if (readU64(reply.payload) !== 0n) throw new Nack(request, readU64(reply.payload));
    }
    return reply;
  }

  /** Sends any bytes, and `fds` with the first of them. */
  async sendRaw(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
    await this.#inTurn(() => this.#socket.send(bytes, fds));
  }

  /** The next message of the backend on this socket, whatever it is; its fds are the caller's. */
  async reply(timeoutMs = this.#timeoutMs): Promise<WireMessage> {
    return this.#nextReply('the next message', timeoutMs);
  }

  // --- inside ---

  #open(socket: string | number): WireSocket {
    const fd = typeof socket === 'number' ? socket : connectUnix(socket);
    const opened = new WireSocket(fd, (message) => {
      this.#replies.push(message);
      this.#replied.raise();
    });
    void opened.closed.then(() => this.#replied.raise());
    return opened;
  }

  /** The backend knows nothing of memory, channel and queues any more. */
  #forget(): void {
    this.#announced.clear();
    this.#channel?.close();
    this.#channel = null;
    for (const { idleCallFd, errFd } of this.#queueEvents.splice(0)) {
      closeFd(idleCallFd);
      closeFd(errFd);
    }
    this.#queues = [];
    this.#phase = 'new';
  }

  async #begin(steps: readonly Step[]): Promise<void> {
    for (let index = 0; index < this.queueCount; index++) {
      this.#queueEvents.push({ idleCallFd: createEventFd(), errFd: createEventFd() });
    }
    await this.#perform(steps);
  }

  async #halt(steps: readonly Step[]): Promise<Map<number, number>> {
    this.#phase = 'stopping';
    const bases = await this.#perform(steps);
    // What the backend sent before it knew of the stop is here by now.
    this.#channel?.pump();
    this.#phase = 'stopped';
    return bases;
  }

  /** Returns the bases that were asked for, by the indices of their queues. */
  async #perform(steps: readonly Step[]): Promise<Map<number, number>> {
    const bases = new Map<number, number>();
    for (const step of steps) {
      if (typeof step === 'string') await this.#say(step);
      else await this.#sayOfQueues(step, bases);
    }
    return bases;
  }

  async #say(step: Exclude<Step, ForQueues>): Promise<void> {
    const negotiates = hasBit(this.offeredFeatures, VHOST_USER_F_PROTOCOL_FEATURES);
    switch (step) {
      case 'SET_OWNER':
        return this.tell(REQUEST.SET_OWNER);
      case 'GET_FEATURES':
        this.offeredFeatures = readU64(await this.ask(REQUEST.GET_FEATURES)) & this.order.passes;
        return;
      case 'GET_PROTOCOL_FEATURES':
        if (!negotiates) return;
        this.offeredProtocolFeatures = readU64(await this.ask(REQUEST.GET_PROTOCOL_FEATURES));
        return;
      case 'SET_PROTOCOL_FEATURES': {
        if (!negotiates) return;
        const acked = this.offeredProtocolFeatures & this.#wantedProtocolFeatures;
        await this.tell(REQUEST.SET_PROTOCOL_FEATURES, u64s(acked));
        this.ackedProtocolFeatures = acked;
        return;
      }
      case 'GET_QUEUE_NUM':
        if (!this.hasProtocolFeature(PROTOCOL_F.MQ)) return;
        this.maxQueues = readU64(await this.ask(REQUEST.GET_QUEUE_NUM));
        return;
      case 'GET_MAX_MEM_SLOTS':
        if (!this.hasProtocolFeature(PROTOCOL_F.CONFIGURE_MEM_SLOTS)) return;
        this.maxMemSlots = readU64(await this.ask(REQUEST.GET_MAX_MEM_SLOTS));
        return;
      case 'SET_BACKEND_REQ_FD':
        if (this.hasProtocolFeature(PROTOCOL_F.BACKEND_REQ)) await this.#openChannel();
        return;
      case 'SET_FEATURES': {
        // The VMM adds the vhost-user bit itself; the guest never sees it.
        const vhostUser = this.offeredFeatures & bits(VHOST_USER_F_PROTOCOL_FEATURES);
        return this.tell(REQUEST.SET_FEATURES, u64s(this.ackedFeatures | vhostUser));
      }
      case 'SET_MEM_TABLE':
        return this.#sendTable(this.ram.regions);
      case 'memory':
        return this.#sendMemory();
    }
  }

  async #sayOfQueues({ of, say }: ForQueues, bases: Map<number, number>): Promise<void> {
    const every = Array.from({ length: this.queueCount }, (_, index) => index);
    const indices = of === 'all' ? every : this.#queues.map(({ index }) => index);
    for (const index of indices) {
      const queue = this.#queues.find((one) => one.index === index);
      for (const step of say) await this.#sayOfQueue(step, index, queue, bases);
    }
  }

  async #sayOfQueue(
    step: QueueStep,
    index: number,
    queue: QueueSetup | undefined,
    bases: Map<number, number>,
  ): Promise<void> {
    const events = this.#queueEvents[index];
    if (events === undefined) throw new Error(`${step} of ${index} before the connection`);
    switch (step) {
      case 'on':
        this.#phase = 'started';
        return this.tell(REQUEST.SET_VRING_ENABLE, encodeVringState(index, 1));
      case 'off':
        return this.tell(REQUEST.SET_VRING_ENABLE, encodeVringState(index, 0));
      case 'SET_VRING_CALL':
        return this.#setVringFd(REQUEST.SET_VRING_CALL, index, queue?.ring.callFd ?? events.idleCallFd);
      case 'SET_VRING_ERR':
        return this.#setVringFd(REQUEST.SET_VRING_ERR, index, events.errFd);
      case 'GET_VRING_BASE': {
        const reply = await this.ask(REQUEST.GET_VRING_BASE, encodeVringState(index, 0));
        if (readU32(reply) !== index)
          this.#violate(`GET_VRING_BASE of ${index} answered for ${readU32(reply)}`);
        bases.set(index, readU32(reply, 4));
        return;
      }
      default:
        if (queue === undefined) throw new Error(`${step} of ${index}, which no driver set up`);
        return this.#setUp(step, queue);
    }
  }

  async #openChannel(): Promise<void> {
    const [ours, theirs] = socketPair();
    this.#channel = new BackendChannel(
      ours,
      () => this.#phase,
      () => this.hasProtocolFeature(PROTOCOL_F.REPLY_ACK),
      (what) => this.#violate(what),
    );
    try {
      await this.tell(REQUEST.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs]);
    } finally {
      closeFd(theirs);
    }
  }

  async #setUp(
    step: Exclude<QueueStep, 'on' | 'off' | 'SET_VRING_CALL' | 'SET_VRING_ERR' | 'GET_VRING_BASE'>,
    { index, ring, base = ring.initialBase }: QueueSetup,
  ): Promise<void> {
    const { descriptorGpa, driverGpa, deviceGpa } = ring.areas;
    switch (step) {
      case 'SET_VRING_NUM':
        return this.tell(REQUEST.SET_VRING_NUM, encodeVringState(index, ring.size));
      case 'SET_VRING_BASE': {
        const standsAt = this.order.base === 'driver' ? this.#readIndex(driverGpa) : base;
        return this.tell(REQUEST.SET_VRING_BASE, encodeVringState(index, standsAt));
      }
      case 'SET_VRING_ADDR':
        return this.tell(
          REQUEST.SET_VRING_ADDR,
          encodeVringAddress(index, {
            descriptors: this.ram.userAddress(descriptorGpa, DESCRIPTOR_BYTES * ring.size),
            used: this.ram.userAddress(deviceGpa, 4),
            available: this.ram.userAddress(driverGpa, 4),
          }),
        );
      case 'SET_VRING_KICK':
        // QEMU's kick eventfds are readable from the start, so that the backend looks at the ring.
        if (this.order.kicksFirst) signalEvent(ring.kickFd);
        return this.#setVringFd(REQUEST.SET_VRING_KICK, index, ring.kickFd);
    }
  }

  #readUsedIndex({ ring }: QueueSetup): number {
    return this.#readIndex(ring.areas.deviceGpa);
  }

  /** Of a split ring, of which both areas begin with flags and an index. */
  #readIndex(areaGpa: number): number {
    return readU32(this.ram.read(areaGpa, 4)) >>> 16;
  }

  /** Sends the regions the backend does not know yet; a table is sent whole, but not for nothing. */
  async #sendMemory(): Promise<void> {
    const news = this.ram.regions.filter((region) => !this.#announced.has(region));
    if (news.length === 0) return;
    if (!this.hasProtocolFeature(PROTOCOL_F.CONFIGURE_MEM_SLOTS)) {
      await this.#sendTable(this.ram.regions);
      return;
    }
    for (const region of news) {
      await this.tell(REQUEST.ADD_MEM_REG, encodeSingleRegion(describeRegion(region)), [region.file.fd]);
      this.#announced.add(region);
    }
  }

  async #sendTable(regions: readonly GuestRegion[]): Promise<void> {
    const fds = regions.map((region) => region.file.fd);
    await this.tell(REQUEST.SET_MEM_TABLE, encodeMemoryTable(regions.map(describeRegion)), fds);
    this.#announced = new Set(regions);
  }

  #setVringFd(request: number, index: number, fd: number): Promise<void> {
    return this.tell(request, u64s(BigInt(index)), [fd]);
  }

  /** One request at a time, as QEMU, which holds a lock from the request to its reply. */
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(task);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #exchange(
    request: number,
    payload: Uint8Array,
    fds: readonly number[],
    needReply: boolean,
  ): Promise<WireMessage> {
    return this.#inTurn(async () => {
      const name = requestName(request);
      const stray = this.#replies[0];
      if (stray !== undefined)
        throw new Error(`before ${name}: an unread reply to ${requestName(stray.request)}`);
      await this.#socket.sendMessage(request, VERSION | (needReply ? NEED_REPLY_FLAG : 0), payload, fds);
      const reply = await this.#nextReply(`a reply to ${name}`, this.#timeoutMs);
      if (reply.request !== request || reply.flags !== (VERSION | REPLY_FLAG)) {
        reply.fds.forEach(closeFd);
        const got = `${requestName(reply.request)} with flags 0x${reply.flags.toString(16)}`;
        throw new Error(`the reply to ${name} says it is ${got}`);
      }
      return reply;
    });
  }

  async #nextReply(what: string, timeoutMs: number): Promise<WireMessage> {
    return this.#replied.until(
      () => {
        const reply = this.#replies.shift();
        if (reply !== undefined) return reply;
        if (this.#socket.isOpen) return null;
        const why = this.#socket.error === null ? '' : `: ${this.#socket.error.message}`;
        throw new Error(`the backend closed the connection instead of ${what}${why}`);
      },
      timeoutMs,
      () => `no sign of ${what}`,
    );
  }

  #violate(what: string): void {
    this.protocolViolations.push(what);
  }
}
