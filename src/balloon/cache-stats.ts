import { monotonicNow } from '../os/clock.js';
import { AwaitedStats } from './awaited-stats.js';

/** Statistics that the driver writes into the config space when it is asked to. */
export class CacheStats extends AwaitedStats {
  readonly request: () => void;

  constructor(ask: () => void) {
    super();
    this.request = ask;
  }

  receive(totalBytes: number, freeBytes: number): void {
    this.values = new Map([
      ['VIRTIO_BALLOON_S_MEMFREE', freeBytes],
      ['VIRTIO_BALLOON_S_MEMTOT', totalBytes],
    ]);
    this.receivedAt = monotonicNow();
    this.came();
  }
}
