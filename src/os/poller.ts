import { checked, SystemError } from './errors.js';
import { native, type WatchHandle } from './native.js';

export const READABLE = 1;
export const WRITABLE = 2;
/** POLLPRI: what pressure stall triggers say. */
export const PRIORITIZED = 8;

/**
 * Watches an fd on the event loop, level-triggered. It does not own the fd; close() before the fd is closed. After an
 * error (such as ECONNRESET from a socket) nothing more is called back until setEvents().
 */
export class Poller {
  readonly #handle: WatchHandle;
  #open = true;

  constructor(fd: number, events: number, onReady: (events: number, error: SystemError | null) => void) {
    this.#handle = watch(fd, events, false, (ready, status) => {
      if (this.#open) onReady(ready, status < 0 ? new SystemError(-status, 'poll') : null);
    });
  }

  /** 0 to pause. */
  setEvents(events: number): void {
    if (this.#open) checked(native.setEvents(this.#handle, events), 'poll');
  }

  /** Nothing is called back after this. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    native.unwatch(this.#handle);
  }
}

export function watch(
  fd: number,
  events: number,
  isCounter: boolean,
  callback: (events: number, status: number) => void,
): WatchHandle {
  const handle = native.watch(fd, events, isCounter ? 1 : 0, callback);
  if (typeof handle === 'number') throw new SystemError(-handle, 'poll', `fd ${fd}`);
  return handle;
}
