/**
 * The vhost-user conversation about one device. A VmDevice (src/vm) makes a Session (this file), which makes, in this order:
 * guest memory, the device, a Vring for each queue, and the Connection. A message goes through connection (looks at the
 * socket), requests (the table of what is allowed, when, with which file descriptors), a method of the Session, and outbox
 * (the reply). A kick goes through vring to the device. turns says whose turn it is; backend-channel tells the VMM of a new
 * config space; session-record is what the next daemon goes on with.
 */
import { encodeU64, type LogRegion } from '../../protocol/vhost-user/payloads.js';
import { FrontendRequest, ProtocolFeature, VhostFeature } from '../../protocol/vhost-user/requests.js';
import { featureMask, hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { FrontendError } from '../memory/errors.js';
import { GuestMemory } from '../memory/guest-memory.js';
import type { GuestRegion } from '../memory/region.js';
import { StateError, StateFile } from '../memory/state-file.js';
import { NO_KEEPER, type FdKeeper } from '../os/fd-keeper.js';
import type { Chain } from '../virtqueue/chain.js';
import type { Device, DeviceHost } from '../virtqueue/device.js';
import { BackendChannel } from './backend-channel.js';
import { Connection, type Message } from './connection.js';
import { DirtyLog } from './dirty-log.js';
import { KeptOutbox } from './outbox.js';
import { QueueCount } from './queue-count.js';
import { changesRecord, endsDevice, needsQuiet, serveRequest } from './requests.js';
import type { RequestContext } from './request-context.js';
import type { SessionObserver, SessionState } from './session-observer.js';
import { foundRegion, hex, regionRecord, type SessionRecord } from './session-record.js';
import { StateTransfer } from './state-transfer.js';
import { TURNS, type Seat, type Turns } from './turns.js';
import { Vring, type VringContext } from './vring.js';

export type { SessionObserver, SessionState } from './session-observer.js';

/** Requests refused without the frontend being told (it did not ask to be); after that many it is cut off. */
const MAX_SILENT_REFUSALS = 64;
/** Within so many milliseconds a VMM that ends closes its connection after the channel of the device. */
const ENDS_MS = 1000;

/** What outlives the process, and what a process before this one left. */
interface HandOver {
  state: StateFile;
  keeper: FdKeeper;
  found: SessionRecord | null;
  /** Those it shares the event loop with; all of the process where nothing is said. */
  turns?: Turns;
  /** The frontend's process. */
  pid?: number;
}

/**
 * One vhost-user connection: a frontend that offers one device to its guest. It owns the connection, the memory
 * mappings and the rings; the device is handed to it.
 * Started means: from a configured ring's SET_VRING_ENABLE(1) until the first SET_VRING_ENABLE(0), GET_VRING_BASE,
 * reset or the end of the connection. Rings are served, and config changes announced, only then.
 */
export class Session implements VringContext, RequestContext, DeviceHost {
  readonly memory: GuestMemory;
  readonly device: Device;
  readonly observer: SessionObserver;
  readonly vrings: readonly Vring[];
  readonly seat: Seat;
  readonly #connection: Connection;
  readonly #keeper: FdKeeper;
  readonly #wasRunning: boolean;
  readonly transfer = new StateTransfer({
    load: (state) => {
      if (this.running) throw new FrontendError('the device started before all of its state came');
      this.device.loadState(state);
    },
    measure: (work) => this.seat.measure(work),
  });
  readonly #queueCount = new QueueCount(this, (present) => {
    this.present = present;
    this.observer.queuesSettled(present);
    this.changed();
  });
  /** Queues that the VMM has, where that is known. */
  present: number | undefined;
  features: FeatureBits = 0n;
  protocolFeatures: FeatureBits = 0n;
  status = 0;
  dirtyLog: DirtyLog | null = null;
  #channel: BackendChannel | null = null;
  #state: SessionState = 'connected';
  /** What was written down is not what is. */
  #unsaved = false;
  #lost: GuestRegion | null = null;
  /** The configuration space changed while there was no channel: cloud-hypervisor makes one after the start. */
  #unannounced = false;
  #silentRefusals = 0;
  #closed = false;
  /** A request that ends the device waits; rings are not served meanwhile. */
  #ending = false;

  /**
   * Owns the connected socket `fd` and the state file. `makeDevice` is called once, with what the device may ask of its
   * session. A session that was found waits for resume(); throws StateError or SystemError when it cannot be gone
   * on with, with everything it found left as it was.
   */
  constructor(
    fd: number,
    observer: SessionObserver,
    makeDevice: (memory: GuestMemory, host: DeviceHost) => Device,
    { state, keeper, found, turns = TURNS, pid }: HandOver = {
      state: StateFile.create(),
      keeper: NO_KEEPER,
      found: null,
    },
  ) {
    this.observer = observer;
    this.#keeper = keeper;
    this.memory = new GuestMemory(state, pid ?? null);
    this.seat = turns.seat(() => observer.throttled(), pid);
    this.device = makeDevice(this.memory, this);
    this.vrings = Array.from({ length: this.device.queueCount }, (_, index) => new Vring(index, this));
    this.#wasRunning = found?.state === 'running';
    try {
      if (found !== null) this.#restore(found);
      this.#connection = new Connection(
        fd,
        {
          mayRead: () => this.seat.may(this.#readOn),
          measure: (work) => this.seat.measure(work),
          ready: (request, payload) => this.#quiet(request, payload),
          message: (message) => this.#serve(message),
          closed: (error) => this.#end(error),
        },
        new KeptOutbox(state, fd),
        keeper,
        found !== null,
      );
    } catch (error) {
      this.#letGo();
      throw error;
    }
  }

  /** What a process after this one needs to know. */
  record(): SessionRecord {
    const nameOf = (fd: number): string => this.#keeper.nameOf(fd) ?? '-';
    return {
      state: this.#state,
      features: hex(this.features),
      protocolFeatures: hex(this.protocolFeatures),
      status: this.status,
      vrings: this.vrings.map((vring) => vring.record(this.#keeper)),
      regions: this.memory.regions.map((region) => regionRecord(region, nameOf)),
      channel: this.#channel === null ? null : this.#keeper.nameOf(this.#channel.fd),
      dirtyLog: this.dirtyLog?.record(nameOf) ?? null,
      ...(this.present !== undefined && { present: this.present }),
    };
  }

  /** Writes down what there is, where somebody keeps it. */
  save(): void {
    this.#unsaved = false;
    if (!this.#keeper.active) return;
    this.memory.state.stage(this.observer.record());
    this.memory.state.save();
  }

  /** What is written down is not what is: to be put right when what is going on has ended. */
  changed(): void {
    if (this.#unsaved) return;
    this.#unsaved = true;
    setImmediate(() => {
      if (this.#unsaved && !this.#closed) this.save();
    });
  }

  /** Goes on where the process before this one ended: what the guest did or asked meanwhile is seen now. */
  resume(): void {
    if (this.intact()) this.start(this.#wasRunning);
    else if (this.#wasRunning) this.device.stop();
    // It may have ended between a used index and its interrupt.
    for (const vring of this.vrings) vring.call();
    this.#connection.readOn();
    if (this.#closed) return;
    this.queueSeen();
    this.configChanged();
    this.save();
  }

  get state(): SessionState {
    return this.#state;
  }

  get running(): boolean {
    return this.#state === 'running' && !this.#ending;
  }

  get configured(): readonly number[] {
    return this.vrings.filter((vring) => vring.configured).map((vring) => vring.index);
  }

  /** What GET_FEATURES answers: the device's features and those of vhost itself. */
  get offeredFeatures(): FeatureBits {
    return (
      this.device.offeredFeatures |
      featureMask(VhostFeature.VHOST_F_LOG_ALL, VhostFeature.VHOST_USER_F_PROTOCOL_FEATURES)
    );
  }

  negotiated(protocolFeature: number): boolean {
    return hasFeature(this.protocolFeatures, protocolFeature);
  }

  ring(index: number): Vring {
    const vring = this.vrings[index];
    if (vring === undefined) {
      throw new FrontendError(`ring ${index} of a device with ${this.vrings.length} queues`);
    }
    return vring;
  }

  /**
   * A ring may be served from now on, unless the device already is: then it is only drained. `resumed`: the rings are
   * those it served before, wherever they stand.
   */
  start(resumed = false): void {
    if (!this.vrings.some((vring) => vring.enabled && vring.configured)) return;
    if (!this.intact()) return;
    if (this.#state !== 'running') {
      for (const vring of this.vrings) vring.attach();
      if (!this.intact()) return;
      this.device.start(resumed || this.vrings.some((vring) => vring.advanced));
      this.#setState('running');
      this.#channel?.open();
    }
    for (const vring of this.vrings) vring.drain();
  }

  /** Nothing is served or announced any more until start(). */
  stop(): void {
    if (this.#state !== 'running') return;
    this.#channel?.hold();
    for (const vring of this.vrings) vring.detach();
    this.device.stop();
    this.#setState('stopped');
  }

  /** Rings and negotiated state back to the beginning; the connection and memory stay. */
  reset(): void {
    this.stop();
    for (const vring of this.vrings) vring.reset();
    this.status = 0;
  }

  /** SET_OWNER, as for a device that is plugged in after another: protocol features and channel came before. */
  begin(): void {
    if (this.running) return;
    for (const vring of this.vrings) vring.close();
    this.dirtyLog?.close();
    this.dirtyLog = null;
    this.features = 0n;
    this.status = 0;
    this.device.setFeatures(0n);
    this.memory.replace([], []);
    if (this.#state === 'stopped') this.#setState('connected');
  }

  /** Takes `fd` over; when it throws, the fd is still the caller's. */
  setChannel(fd: number): void {
    const acknowledged = this.negotiated(ProtocolFeature.VHOST_USER_PROTOCOL_F_REPLY_ACK);
    const channel = new BackendChannel(
      fd,
      acknowledged,
      this.#keeper,
      this.seat,
      () => this.observer.configChangeSent(),
      (error) => {
        if (this.#channel === channel) this.#channel = null;
        if (this.#closed) return;
        this.save();
        if (error === null) setTimeout(() => this.#unplugged(), ENDS_MS).unref();
      },
    );
    this.#channel?.close();
    this.#channel = channel;
    if (!this.running) return;
    if (this.#unannounced) this.configChanged();
    this.#channel.open();
  }

  /** Owns `fd`; when it throws, that is still the caller's. */
  setDirtyLog(region: LogRegion, fd: number): void {
    const log = new DirtyLog(region, fd, (error) => this.observer.requestRefused('SET_LOG_BASE', error));
    this.dirtyLog?.close();
    this.dirtyLog = log;
  }

  /** Runs a change of guest memory with no ring looking at it. `gpa`: of the region that is changed; null: all of it is. */
  changeMemory(gpa: bigint | null, change: () => void): void {
    for (const vring of this.vrings) vring.detach();
    try {
      change();
    } finally {
      for (const vring of this.vrings) vring.drain();
    }
    this.observer.memoryChanged(gpa);
  }

  get awaitsDriver(): boolean {
    return this.#state === 'connected' && this.features === 0n;
  }

  queueSeen(): void {
    this.#queueCount.look();
  }

  configChanged(): void {
    this.#unannounced = this.#channel === null;
    this.#channel?.configChanged();
  }

  complete(queue: number, chain: Chain, writtenBytes: number): void {
    this.ring(queue).complete(chain, writtenBytes);
  }

  intact(): boolean {
    const { lost } = this.memory;
    if (lost === null || lost === this.#lost) return lost === null;
    this.#lost = lost;
    for (const vring of this.vrings) vring.abandon();
    this.stop();
    this.observer.memoryLost(lost);
    this.changed();
    return false;
  }

  ringFailed(index: number, error: Error): void {
    this.observer.ringFailed(index, error);
    this.changed();
  }

  kickAcked(ms: number): void {
    this.observer.kickAcked(ms);
  }

  /** Ends the connection from our side. */
  close(error: Error | null = null): void {
    this.#connection.close();
    this.#end(error);
  }

  readonly #readOn = (): void => this.#connection.readOn();

  /** The channel is a device's, and the connection the VMM's: where the channel alone ended, the device is gone. */
  #unplugged(): void {
    if (!this.#closed && this.#channel === null && !this.running) this.observer.unplugged();
  }

  /** Whether nothing is at work on what the request takes away; else the request is read again then. */
  #quiet(request: number, payload: Uint8Array): boolean {
    if (request === FrontendRequest.CHECK_DEVICE_STATE) return this.transfer.whenSettled(this.#readOn);
    if (!needsQuiet(request)) return true;
    if (this.#state !== 'running' || !endsDevice(request, payload)) {
      return this.device.interrupt(this.#readOn);
    }
    this.#ending = true;
    return this.device.release(this.#readOn);
  }

  #serve(message: Message): void {
    this.seat.chargeMessage();
    // The only messages that answer us come on the backend channel.
    if (message.isReply) throw new FrontendError('a reply to nothing');
    const acknowledge = message.needReply && this.negotiated(ProtocolFeature.VHOST_USER_PROTOCOL_F_REPLY_ACK);
    const records = this.#keeper.active && changesRecord(message.request);
    serveRequest(this, message, ({ name, reply, error }) => {
      if (records) this.memory.state.stage(this.observer.record());
      this.#unsaved = false;
      this.#connection.answer(message, reply ?? (acknowledge ? encodeU64(error === null ? 0n : 1n) : null));
      if (error !== null) this.#refused(name, error, reply !== null || acknowledge);
    });
    if (this.#unsaved && !this.#closed) this.save();
    const refused = this.#ending && this.#state === 'running';
    this.#ending = false;
    if (!refused) return;
    this.device.goOn();
    for (const vring of this.vrings) vring.drain();
  }

  #refused(name: string, error: Error, told: boolean): void {
    this.observer.requestRefused(name, error);
    if (!told && ++this.#silentRefusals > MAX_SILENT_REFUSALS) {
      throw new FrontendError(
        `more than ${MAX_SILENT_REFUSALS} requests had to be refused, the last was ${name}`,
      );
    }
  }

  #end(error: Error | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queueCount.close();
    this.transfer.close();
    this.stop();
    this.seat.leave();
    for (const vring of this.vrings) vring.close();
    this.#channel?.close();
    this.dirtyLog?.close();
    const end = (): void => {
      if (!this.device.interrupt(end)) return;
      this.memory.close();
      this.observer.closed(error);
    };
    end();
  }

  #restore(found: SessionRecord): void {
    const fdOf = (name: string): number => {
      const fd = this.#keeper.claim(name);
      if (fd === null) throw new StateError(`the file descriptor ${name} is not there`);
      return fd;
    };
    this.#state = found.state === 'running' ? 'stopped' : found.state;
    this.features = BigInt(found.features);
    this.protocolFeatures = BigInt(found.protocolFeatures);
    this.status = found.status;
    this.present = found.present;
    this.device.setFeatures(this.features);
    this.memory.resume(found.regions.map((record) => foundRegion(record, fdOf)));
    if (found.dirtyLog !== null) {
      const { sizeBytes, offset, fd } = found.dirtyLog;
      this.setDirtyLog({ sizeBytes: BigInt(sizeBytes), offset: BigInt(offset) }, fdOf(fd));
    }
    // It ends for itself, and then nobody misses it.
    const channel = found.channel === null ? null : this.#keeper.claim(found.channel);
    if (channel !== null) this.setChannel(channel);
    if (found.vrings.length > this.vrings.length) {
      throw new StateError(`${found.vrings.length} rings of a device with ${this.vrings.length} queues`);
    }
    for (const [index, record] of found.vrings.entries()) this.ring(index).restore(record, fdOf);
  }

  /** Of all that was found: nothing is closed, and nothing looks at it any more. */
  #letGo(): void {
    this.#closed = true;
    for (const vring of this.vrings) vring.letGo();
    this.#channel?.letGo();
    this.dirtyLog?.letGo();
    this.memory.letGo();
  }

  #setState(state: SessionState): void {
    this.#state = state;
    this.changed();
    this.observer.stateChanged(state);
  }
}
