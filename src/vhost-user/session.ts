import { encodeU64, type RegionDescription } from '../../protocol/vhost-user/payloads.js';
import { ProtocolFeature, VhostFeature } from '../../protocol/vhost-user/requests.js';
import { featureMask, hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { FrontendError } from '../memory/errors.js';
import { GuestMemory } from '../memory/guest-memory.js';
import type { Chain } from '../virtqueue/chain.js';
import type { Device, DeviceHost } from '../virtqueue/device.js';
import { BackendChannel } from './backend-channel.js';
import { Connection, type Message } from './connection.js';
import type { DirtyLog } from './dirty-log.js';
import { needsQuiet, serveRequest } from './requests.js';
import { Vring, type VringContext } from './vring.js';

/** Requests refused without the frontend being told (it did not ask to be); after that many it is cut off. */
const MAX_SILENT_REFUSALS = 64;

/** Frontends send SET_VRING_CALL for every queue right after connecting; this long after the last it is over. */
const QUEUES_SETTLE_MS = 300;

export type SessionState = 'connected' | 'running' | 'stopped';

/** What a session tells its owner. None of these may throw. */
export interface SessionObserver {
  /** Why the region cannot be served, or null. */
  inspectRegion(description: RegionDescription): string | null;
  memoryChanged(): void;
  featuresAcked(features: FeatureBits): void;
  stateChanged(state: SessionState): void;
  requestRefused(request: string, error: Error): void;
  ringFailed(index: number, error: Error): void;
  queuesSettled(present: number, needed: number): void;
  configChangeSent(): void;
  /** The connection is gone and everything it brought is freed. `error`: why it was cut off; null: it closed. */
  closed(error: Error | null): void;
}

/**
 * One vhost-user connection: a frontend that offers one device to its guest. It owns the connection, the memory
 * mappings and the rings; the device is handed to it.
 *
 * Started means: from a configured ring's SET_VRING_ENABLE(1) until the first SET_VRING_ENABLE(0), GET_VRING_BASE,
 * reset or the end of the connection. Rings are served, and config changes announced, only then.
 */
export class Session implements VringContext, DeviceHost {
  readonly memory: GuestMemory;
  readonly device: Device;
  readonly observer: SessionObserver;
  readonly vrings: readonly Vring[];
  readonly #connection: Connection;
  features: FeatureBits = 0n;
  protocolFeatures: FeatureBits = 0n;
  status = 0;
  dirtyLog: DirtyLog | null = null;
  #channel: BackendChannel | null = null;
  #state: SessionState = 'connected';
  #silentRefusals = 0;
  #settle: NodeJS.Timeout | null = null;
  #closed = false;

  /** Owns the connected socket `fd`. `makeDevice` is called once, with what the device may ask of its session. */
  constructor(
    fd: number,
    observer: SessionObserver,
    makeDevice: (memory: GuestMemory, host: DeviceHost) => Device,
  ) {
    this.observer = observer;
    this.memory = new GuestMemory();
    this.device = makeDevice(this.memory, this);
    this.vrings = Array.from({ length: this.device.queueCount }, (_, index) => new Vring(index, this));
    this.#connection = new Connection(fd, {
      ready: (request) => !needsQuiet(request) || this.device.interrupt(() => this.#connection.resume()),
      message: (message) => this.#serve(message),
      closed: (error) => this.#end(error),
    });
  }

  get state(): SessionState {
    return this.#state;
  }

  get running(): boolean {
    return this.#state === 'running';
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

  /** A ring may be served from now on, unless the device already is: then it is only drained. */
  start(): void {
    if (!this.vrings.some((vring) => vring.enabled && vring.configured)) return;
    if (this.#state !== 'running') {
      for (const vring of this.vrings) vring.attach();
      this.device.start(this.vrings.some((vring) => vring.advanced));
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

  /** Takes `fd` over; when it throws, the fd is still the caller's. */
  setChannel(fd: number): void {
    const acknowledged = this.negotiated(ProtocolFeature.VHOST_USER_PROTOCOL_F_REPLY_ACK);
    const channel = new BackendChannel(fd, acknowledged, () => this.observer.configChangeSent());
    this.#channel?.close();
    this.#channel = channel;
    if (this.running) this.#channel.open();
  }

  setDirtyLog(log: DirtyLog): void {
    this.dirtyLog?.close();
    this.dirtyLog = log;
  }

  /** Runs a change of guest memory with no ring looking at it. */
  changeMemory(change: () => void): void {
    for (const vring of this.vrings) vring.detach();
    try {
      change();
    } finally {
      for (const vring of this.vrings) vring.drain();
    }
    this.observer.memoryChanged();
  }

  /** A queue was named in the connection's opening messages. */
  queueSeen(): void {
    if (this.#state !== 'connected') return;
    if (this.#settle !== null) clearTimeout(this.#settle);
    this.#settle = setTimeout(() => {
      this.observer.queuesSettled(this.vrings.filter((vring) => vring.hasCall).length, this.vrings.length);
    }, QUEUES_SETTLE_MS).unref();
  }

  configChanged(): void {
    this.#channel?.configChanged();
  }

  complete(queue: number, chain: Chain, writtenBytes: number): void {
    this.ring(queue).complete(chain, writtenBytes);
  }

  ringFailed(index: number, error: Error): void {
    this.observer.ringFailed(index, error);
  }

  /** Ends the connection from our side. */
  close(error: Error | null = null): void {
    this.#connection.close();
    this.#end(error);
  }

  #serve(message: Message): void {
    // The only messages that answer us come on the backend channel.
    if (message.isReply) throw new FrontendError('a reply to nothing');
    const acknowledge = message.needReply && this.negotiated(ProtocolFeature.VHOST_USER_PROTOCOL_F_REPLY_ACK);
    serveRequest(this, message, ({ name, reply, error }) => {
      if (reply !== null) this.#connection.reply(message, reply);
      else if (acknowledge) this.#connection.reply(message, encodeU64(error === null ? 0n : 1n));
      if (error !== null) this.#refused(name, error, reply !== null || acknowledge);
    });
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
    if (this.#settle !== null) clearTimeout(this.#settle);
    this.stop();
    for (const vring of this.vrings) vring.close();
    this.#channel?.close();
    this.dirtyLog?.close();
    const end = (): void => {
      this.memory.close();
      this.observer.closed(error);
    };
    if (this.device.interrupt(end)) end();
  }

  #setState(state: SessionState): void {
    this.#state = state;
    this.observer.stateChanged(state);
  }
}
