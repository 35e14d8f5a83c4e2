/** Which of the remembered events a client gets, and what it has to be told about those that it does not get. */
import type { EventLevel } from '../../protocol/control/events.js';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import type { EventSource } from './fleet.js';

/** Where a client wants to go on: behind the event of a number, or at a moment in milliseconds since 1970. */
export type Since = { readonly seq: number; readonly epoch: string | null } | { readonly timeMs: number };

export interface EventFilter {
  readonly vm?: string | undefined;
  /** The least level. */
  readonly level?: EventLevel | undefined;
}

interface Replay {
  readonly events: readonly DaemonEvent[];
  /** One line: what is missing, or why more comes than was asked for; null: it is just what was asked for. */
  readonly notice: string | null;
}

const RANKS: Readonly<Record<EventLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

/** Null when it is none of the forms that the table of operations has for it. */
export function parseSince(text: string): Since | null {
  if (/^\d{1,15}$/.test(text)) return { seq: Number(text), epoch: null };
  const [, epoch, seq] = /^([0-9a-f]{8})-(\d{1,15})$/.exec(text) ?? [];
  if (epoch !== undefined) return { epoch, seq: Number(seq) };
  const timeMs = Date.parse(text);
  return Number.isNaN(timeMs) ? null : { timeMs };
}

/** What a `Last-Event-ID` means. One that this daemon cannot have given is one of another epoch. */
export function lastEventId(text: string): Since {
  const since = parseSince(text);
  return since !== null && 'seq' in since ? since : { epoch: '', seq: 0 };
}

export function passes({ vm, level = 'debug' }: EventFilter, event: DaemonEvent): boolean {
  return (vm === undefined || vm === event.vm) && RANKS[event.level] >= RANKS[level];
}

/** `since` null: nothing is replayed. */
export function replay(source: EventSource, since: Since | null, filter: EventFilter): Replay {
  if (since === null) return { events: [], notice: null };
  const { events, notice } = 'timeMs' in since ? sinceTime(source, since.timeMs) : sinceSeq(source, since);
  return { events: events.filter((event) => passes(filter, event)), notice };
}

function sinceTime(source: EventSource, timeMs: number): Replay {
  const all = source.recent(0);
  const [oldest] = all;
  const forgotten = oldest !== undefined && oldest.seq > 1 && Date.parse(oldest.time) > timeMs;
  return {
    events: all.filter(({ time }) => Date.parse(time) >= timeMs),
    notice: forgotten ? `events before ${oldest.time} are not remembered any more: the log has them` : null,
  };
}

function sinceSeq(source: EventSource, { seq, epoch }: { seq: number; epoch: string | null }): Replay {
  const id = epoch === null ? `${seq}` : `${epoch}-${seq}`;
  const all = (why: string): Replay => ({
    events: source.recent(0),
    notice: `${why}: all events that are remembered follow`,
  });
  if (epoch !== null && epoch !== source.epoch) {
    return all(
      epoch === ''
        ? `the id is none of this daemon, whose events are ${source.epoch}-N`
        : `event ${id} is of another epoch: the daemon could not go on with its events and began epoch ${source.epoch}`,
    );
  }
  if (seq > source.newest) {
    return all(`event ${id} is beyond the newest, ${source.epoch}-${source.newest}`);
  }
  const events = source.recent(seq);
  const lost = (events[0]?.seq ?? source.newest + 1) - seq - 1;
  // Who asks for all that is remembered knows that it is not all there was.
  const asked = seq > 0 || epoch !== null;
  const notice = `${lost} events after ${id} are not remembered any more: the log has them`;
  return { events, notice: asked && lost > 0 ? notice : null };
}
