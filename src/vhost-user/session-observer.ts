import type { GuestRegion } from '../memory/region.js';
import type { RequestObserver } from './request-context.js';

export type SessionState = 'connected' | 'running' | 'stopped';

/** What a session tells its owner. None of these may throw. */
export interface SessionObserver extends RequestObserver {
  stateChanged(state: SessionState): void;
  requestRefused(request: string, error: Error): void;
  ringFailed(index: number, error: Error): void;
  /** A kick was answered; called for each of them. */
  kickAcked(ms: number): void;
  /** It waits for turns, and has done so for a while, since it keeps the event loop busy. */
  throttled(): void;
  /** Part of guest memory is gone: the device is stopped until the VMM shares other memory. */
  memoryLost(region: GuestRegion): void;
  queuesSettled(present: number): void;
  configChangeSent(): void;
  /** The VMM took the device out of the VM, and kept the connection, on which another device may be plugged in. */
  unplugged(): void;
  /** What is to be written down of the VM changed; for keepers that are active. */
  record(): string;
  /** The connection is gone and everything it brought is freed. `error`: why it was cut off; null: it closed. */
  closed(error: Error | null): void;
}
