import type { ServerResponse } from 'node:http';
import {
  LIVE_TICKS,
  SAMPLE_MS,
  samplesOf,
  type LiveHistory,
  type LiveTick,
} from '../../protocol/control/live.js';
import { BACKLOG_LIMIT_BYTES, STREAM_HEADERS } from './event-stream.js';

/** While somebody watches, and while nobody does, so that who comes sees more than a moment. */
const WATCHED_MS = 2000;
const UNWATCHED_MS = 10_000;
/** Of what is remembered, however many VMs there are. */
const TICKS_BYTES = 4 * 2 ** 20;

/** The samples of the last hour. */
export interface History {
  add(time: number, samples: ReadonlyMap<string, number>): void;
  read(now: number, wanted: (name: string) => boolean): LiveHistory;
}

/** Tells pages what there is, as server-sent events. What is sent is made once, however many watch. */
export class LiveFeed {
  readonly #look: () => LiveTick;
  readonly #history: History;
  readonly #watchers = new Set<ServerResponse>();
  #ticks: string[] = [];
  #tickBytes = 0;
  /** The number of the last sample. */
  #sample = NaN;
  #timer: NodeJS.Timeout;

  constructor(look: () => LiveTick, history: History) {
    this.#look = look;
    this.#history = history;
    this.#timer = this.#later();
  }

  /** Takes over the response, which ends when the client leaves, is too slow, or it is ended. */
  stream(response: ServerResponse): void {
    response.writeHead(200, STREAM_HEADERS);
    // An idle stream is no stalled one.
    response.socket?.setTimeout(0);
    response.write(this.#ticks.join('') || ':\n\n');
    this.#watchers.add(response);
    response.on('close', () => this.#watchers.delete(response));
    clearTimeout(this.#timer);
    this.#tick();
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #later(): NodeJS.Timeout {
    return setTimeout(() => this.#tick(), this.#watchers.size > 0 ? WATCHED_MS : UNWATCHED_MS).unref();
  }

  #tick(): void {
    const tick = this.#look();
    // Most ticks of a page that somebody watches come between two samples.
    const sample = Math.floor(tick.time / SAMPLE_MS);
    if (sample !== this.#sample) this.#history.add(tick.time, samplesOf(tick));
    this.#sample = sample;
    const text = `data: ${JSON.stringify(tick)}\n\n`;
    this.#ticks.push(text);
    this.#tickBytes += text.length;
    while (this.#ticks.length > LIVE_TICKS || (this.#tickBytes > TICKS_BYTES && this.#ticks.length > 1)) {
      this.#tickBytes -= this.#ticks.shift()?.length ?? 0;
    }
    for (const watcher of this.#watchers) {
      if (watcher.writableEnded) continue;
      watcher.write(text);
      if (watcher.writableLength > TICKS_BYTES + BACKLOG_LIMIT_BYTES + text.length) watcher.destroy();
    }
    this.#timer = this.#later();
  }
}
