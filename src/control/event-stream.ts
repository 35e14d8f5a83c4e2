/**
 * One client's stream of server-sent events. Its buffer is bounded: a client that reads slower than events
 * come is dropped, because the daemon must not grow for it.
 */
import type { ServerResponse } from 'node:http';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { passes, replay, type EventFilter, type Since } from './event-replay.js';
import type { EventSource } from './fleet.js';

/** What may wait for a slow client, beyond the replay it asked for. */
export const BACKLOG_LIMIT_BYTES = 256 * 1024;

export const STREAM_HEADERS = { 'content-type': 'text/event-stream', 'cache-control': 'no-store' } as const;

export interface StreamOptions {
  /** Replay what is remembered from here on; null: new events only. */
  readonly since: Since | null;
  readonly filter: EventFilter;
  /** False: end after the replay. */
  readonly follow: boolean;
}

/** Takes over the response. The stream ends when the client leaves, is too slow, or `response` is ended. */
export function streamEvents(response: ServerResponse, events: EventSource, options: StreamOptions): void {
  const { since, filter, follow } = options;
  response.writeHead(200, STREAM_HEADERS);
  const { events: remembered, notice } = replay(events, since, filter);
  const parts = [
    ...(notice === null ? [] : [`: ${notice}\n\n`]),
    ...remembered.map(encode),
    // An event without data is none: it says where to go on from, also to a client that was sent nothing yet.
    `id: ${events.epoch}-${events.newest}\n\n`,
  ];
  if (!follow) {
    response.end(parts.join(''));
    return;
  }
  response.write(parts.join(''));
  const limitBytes = response.writableLength + BACKLOG_LIMIT_BYTES;
  // An idle stream is no stalled one.
  response.socket?.setTimeout(0);
  const unsubscribe = events.subscribe((event) => {
    if (response.writableEnded || !passes(filter, event)) return;
    response.write(encode(event));
    if (response.writableLength > limitBytes) response.destroy();
  });
  response.on('close', unsubscribe);
}

function encode(event: DaemonEvent): string {
  return `id: ${event.id}\nevent: ${event.event}\ndata: ${JSON.stringify(event)}\n\n`;
}
