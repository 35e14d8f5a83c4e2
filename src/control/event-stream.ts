/**
 * One client's stream of server-sent events. Its buffer is bounded: a client that reads slower than events
 * come is dropped, because the daemon must not grow for it.
 */
import type { ServerResponse } from 'node:http';
import type { DaemonEvent } from '../../protocol/control/events.js';
import type { EventSource } from './fleet.js';

/** What may wait for a slow client, beyond the replay it asked for. */
export const BACKLOG_LIMIT_BYTES = 256 * 1024;

export interface StreamOptions {
  /** Replay what is remembered after this `seq`; null: new events only. */
  readonly sinceSeq: number | null;
  /** False: end after the replay. */
  readonly follow: boolean;
}

/** Takes over the response. The stream ends when the client leaves, is too slow, or `response` is ended. */
export function streamEvents(response: ServerResponse, events: EventSource, options: StreamOptions): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const replay = options.sinceSeq === null ? '' : events.recent(options.sinceSeq).map(encode).join('');
  if (!options.follow) {
    response.end(replay);
    return;
  }
  response.flushHeaders();
  if (replay !== '') response.write(replay);
  const limitBytes = response.writableLength + BACKLOG_LIMIT_BYTES;
  // An idle stream is no stalled one.
  response.socket?.setTimeout(0);
  const unsubscribe = events.subscribe((event) => {
    if (response.writableEnded) return;
    response.write(encode(event));
    if (response.writableLength > limitBytes) response.destroy();
  });
  response.on('close', unsubscribe);
}

function encode(event: DaemonEvent): string {
  return `id: ${event.seq}\nevent: ${event.event}\ndata: ${JSON.stringify(event)}\n\n`;
}
