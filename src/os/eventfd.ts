import { checked } from './errors.js';
import { readKernelFile } from './kernel-file.js';
import { native, type WatchHandle } from './native.js';
import { READABLE, watch } from './poller.js';

export function createEventFd(initial = 0): number {
  return checked(native.eventfd(initial), 'eventfd');
}

export function isEventFd(fd: number): boolean {
  try {
    return readKernelFile(`/proc/self/fdinfo/${fd}`).includes('\neventfd-count:');
  } catch {
    return false;
  }
}

/**
 * Calls back when the counter was raised. Wake-ups coalesce: one callback may stand for many. The counter is left as it is,
 * but for the first one. It does not own the fd; close() before the fd is closed.
 */
export class EventWatch {
  readonly #handle: WatchHandle;
  #open = true;

  constructor(fd: number, onEvent: () => void) {
    this.#handle = watch(fd, READABLE, 'counter', () => {
      if (this.#open) onEvent();
    });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    native.unwatch(this.#handle);
  }
}

/** Raises the counter by one. Never blocks; false when it is full or the fd does not take it. */
export function signalEvent(fd: number): boolean {
  return native.signal(fd) === 1;
}

/** Reads the counter and sets it to zero. Never blocks; 0 when there is nothing. */
export function drainEvent(fd: number): number {
  return native.drain(fd);
}
