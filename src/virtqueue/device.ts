import type { FeatureBits } from '../../protocol/virtio/features.js';
import type { Chain } from './chain.js';

/**
 * A virtio device as a session serves it. The device is a function from a chain to an outcome: it never touches
 * rings, eventfds or the socket. Chains handed to handle() are given back to the driver when flush() says so, so
 * whatever must have happened before the driver's next step has happened by then.
 */
export interface Device {
  /** Bits offered to the driver: the device's own and the ring features it can be served with. */
  readonly offeredFeatures: FeatureBits;
  readonly queueCount: number;
  /** Queues that the VMM has to have for the device; with fewer than `queueCount` it does less. */
  readonly leastQueues: number;

  /** Any offset and length; bytes beyond the configuration space read as zero. */
  readConfig(offset: number, lenBytes: number): Uint8Array;
  /** Takes what the driver may write and ignores the rest. */
  writeConfig(offset: number, bytes: Uint8Array): void;

  /** The driver's features are known. */
  setFeatures(acked: FeatureBits): void;
  /** Rings begin to be served. `resumed`: the driver is the one that was there before the stop. */
  start(resumed: boolean): void;
  /** Rings ended, by the driver, a reset, a paused VM or a lost connection. */
  stop(): void;

  /**
   * Which of `configured` queues may be served now; a queue may have to wait for others to be configured. `present`: queues
   * that the VMM has, where that is known.
   */
  serves(queue: number, configured: readonly number[], present?: number): boolean;
  /** Bytes written into the chain, or null to hold it until complete() is called for it. */
  handle(queue: number, chain: Chain): number | null;
  /** A ring is let go of: chains held of it will be seen again, or never. */
  forget(queue: number): void;
  /**
   * A drain ends. True: its chains may be given back. False: `done` is called when they may be; until then no
   * more chains of this queue are handed over. A `done` of a ring that was let go of meanwhile does nothing.
   */
  flush(queue: number, done: () => void): boolean;
  /**
   * True when the device is not at work on guest memory behind flush(). Else that is cut short, and `idle` is called
   * when it has ended, before anything new is begun: the moment to take rings or memory away.
   */
  interrupt(idle: () => void): boolean;
  /**
   * As interrupt(), before the device is stopped: the guest may use all of its memory afterwards, without a word. What was
   * taken of it is made sure of first, as far as that can be done.
   */
  release(idle: () => void): boolean;
  /** The device is not stopped after all. */
  goOn(): void;

  /** All that another process needs to go on with the driver, of a device that is stopped. */
  saveState(): Uint8Array;
  /** The next start goes on with the driver of that state, in whose memory the rings are. Throws StateError. */
  loadState(state: Uint8Array): void;
}

/** What a device may ask of the session that serves it. */
export interface DeviceHost {
  /** The configuration space changed: tell the driver as soon as that is allowed. */
  configChanged(): void;
  /** Gives back a chain that handle() held. */
  complete(queue: number, chain: Chain, writtenBytes: number): void;
}
