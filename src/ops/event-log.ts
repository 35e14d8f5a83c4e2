import { EVENTS, type EventName } from '../../protocol/control/events.js';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { monotonicNow, msAgo, msSince, wallTime, type Monotonic } from '../os/clock.js';
import { EVENT_BYTES_MAX, EVENTS_KEPT, newEpoch, numbered, type EventMemory } from './event-memory.js';

/** Of one kind and VM: this many at once, then one a second. What is left out is counted. */
const BURST = 10;
const REFILL_MS = 1000;
/** VMs that are gone and still counted for: they may call themselves by any number of names. */
const GONE_MAX = 1000;

/** Of a message whose event is too long to be remembered as it is. */
const CUT_CHARACTERS = 2000;

/** What a line has beside its message: the event's name, the VM that is meant, and the figures. */
export type LoggedFields = Readonly<{ event: EventName; vm?: string }> & Readonly<Record<string, unknown>>;

/** Messages that reach it begin with the name of the VM that is meant, as in `web-1: the guest driver started`. */
export interface LogSink {
  /** The least level that is written; without it everything is. */
  readonly level?: string;
  debug(fields: LoggedFields, message: string): void;
  info(fields: LoggedFields, message: string): void;
  warn(fields: LoggedFields, message: string): void;
  error(fields: LoggedFields, message: string): void;
}

export type Emit = (event: EventName, message: string, fields?: Record<string, unknown>, vm?: string) => void;

interface Bucket {
  tokens: number;
  /** When the last token came back. */
  at: Monotonic;
  leftOut: number;
}

/**
 * What happened and why, newest last: each event goes to the log, to a bounded memory and to those who follow.
 * A guest or VMM that causes events without end fills neither. Where the memory is handed over, events go on in it.
 */
export class EventLog {
  /** Of the numbers of events: another one when a daemon cannot go on with those of the one before it. */
  readonly epoch: string;
  readonly #log: LogSink;
  readonly #memory: EventMemory | null;
  readonly #recent: DaemonEvent[] = [];
  #recalled = false;
  readonly #followers = new Set<(event: DaemonEvent) => void>();
  /** By VM, '' for those of no VM, and by kind. */
  readonly #buckets = new Map<string, Map<EventName, Bucket>>();
  /** VMs that are gone and whose buckets may not be full yet, the longest gone first. */
  readonly #gone = new Map<string, Monotonic>();
  /** How often each event was met, also those that were left out. */
  readonly counts = new Map<EventName, number>();
  #seq: number;

  constructor(log: LogSink, memory: EventMemory | null = null) {
    this.#log = log;
    this.#memory = memory;
    this.epoch = memory?.epoch ?? newEpoch();
    this.#seq = memory?.newest ?? 0;
  }

  /** The `seq` of the newest event; 0: there was none. */
  get newest(): number {
    return this.#seq;
  }

  readonly emit: Emit = (event, message, fields = {}, vm) => {
    this.counts.set(event, (this.counts.get(event) ?? 0) + 1);
    const { level } = EVENTS[event];
    // Each VM at rest has one every few seconds, and only the log takes them.
    if (level === 'debug' && !this.#writesDebug) return;
    const bucket = this.#bucket(event, vm);
    if (bucket.tokens < 1) {
      bucket.leftOut++;
      return;
    }
    bucket.tokens--;
    const counted = bucket.leftOut > 0 ? { ...fields, leftOut: bucket.leftOut } : fields;
    bucket.leftOut = 0;
    const named = vm === undefined ? {} : { vm };
    this.#log[level]({ event, ...named, ...counted }, vm === undefined ? message : `${vm}: ${message}`);
    if (level === 'debug') return;
    this.#remember({ time: wallTime(), event, level, ...named, message, fields: counted });
  };

  /**
   * Recalls the events that were remembered before this daemon. Returns how many of them this build cannot read; 0 where
   * they have been recalled before.
   */
  recall(): number {
    if (this.#recalled) return 0;
    this.#recalled = true;
    const { events, unknown } = this.#memory?.recall() ?? { events: [], unknown: 0 };
    this.#recent.unshift(...events);
    this.#recent.splice(0, this.#recent.length - EVENTS_KEPT);
    return unknown;
  }

  /** Events after `sinceSeq`, as far as they are still known. */
  recent(sinceSeq: number): DaemonEvent[] {
    this.recall();
    return this.#recent.filter((entry) => entry.seq > sinceSeq);
  }

  subscribe(follower: (event: DaemonEvent) => void): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  /** A VM is gone. What was counted for it follows once it counts no more: a VM that comes again at once has no new burst. */
  forget(vm: string): void {
    this.#gone.delete(vm);
    this.#gone.set(vm, monotonicNow());
    for (const [name, since] of this.#gone) {
      if (this.#gone.size <= GONE_MAX && msSince(since) < BURST * REFILL_MS) return;
      this.#gone.delete(name);
      this.#buckets.delete(name);
    }
  }

  get #writesDebug(): boolean {
    const { level = 'debug' } = this.#log;
    return level === 'debug' || level === 'trace';
  }

  #remember(said: Omit<DaemonEvent, 'seq' | 'epoch' | 'id'>): void {
    const seq = this.#seq + 1;
    const short = bounded(said);
    const entry: DaemonEvent = { ...numbered(this.epoch, seq), ...short.event };
    // Nobody hears of an event that the next daemon would not know.
    this.#memory?.add(seq, short.json);
    this.#seq = seq;
    this.#recent.push(entry);
    if (this.#recent.length > EVENTS_KEPT) this.#recent.shift();
    for (const follower of this.#followers) follower(entry);
  }

  #bucket(event: EventName, vm = ''): Bucket {
    let kinds = this.#buckets.get(vm);
    if (kinds === undefined) {
      kinds = new Map<EventName, Bucket>();
      this.#buckets.set(vm, kinds);
    }
    this.#gone.delete(vm);
    const bucket = kinds.get(event) ?? { tokens: BURST, at: monotonicNow(), leftOut: 0 };
    const passedMs = msSince(bucket.at);
    const refill = Math.floor(passedMs / REFILL_MS);
    if (refill > 0) {
      bucket.tokens = Math.min(BURST, bucket.tokens + refill);
      bucket.at = msAgo(passedMs - refill * REFILL_MS);
    }
    kinds.set(event, bucket);
    return bucket;
  }
}

type Said = Omit<DaemonEvent, 'seq' | 'epoch' | 'id'>;

/** The event as it is kept: a long one without its figures, which the log has, and with the beginning of its message. */
function bounded(event: Said): { event: Said; json: string } {
  const json = JSON.stringify(event);
  if (Buffer.byteLength(json) <= EVENT_BYTES_MAX) return { event, json };
  const message = `${event.message.slice(0, CUT_CHARACTERS).replace(/\p{Cs}$/u, '')}…`;
  const cut = { ...event, message, fields: { cutBytes: Buffer.byteLength(json) } };
  return { event: cut, json: JSON.stringify(cut) };
}
