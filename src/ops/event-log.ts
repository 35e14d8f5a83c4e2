import { EVENTS, type DaemonEvent, type EventName } from '../../protocol/control/events.js';
import { monotonicNow, msAgo, msSince, wallTime, type Monotonic } from '../os/clock.js';

/** Events kept for those who ask later. */
const KEPT = 1000;

/** Of one kind and VM: this many at once, then one a second. What is left out is counted. */
const BURST = 10;
const REFILL_MS = 1000;

/** What a line has beside its message: the event's name, the VM that is meant, and the figures. */
export type LoggedFields = Readonly<{ event: EventName; vm?: string }> & Readonly<Record<string, unknown>>;

export interface LogSink {
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
 * A guest or VMM that causes events without end fills neither.
 */
export class EventLog {
  readonly #log: LogSink;
  readonly #recent: DaemonEvent[] = [];
  readonly #followers = new Set<(event: DaemonEvent) => void>();
  /** By VM, '' for those of no VM, and by kind. */
  readonly #buckets = new Map<string, Map<EventName, Bucket>>();
  #seq = 0;

  constructor(log: LogSink) {
    this.#log = log;
  }

  readonly emit: Emit = (event, message, fields = {}, vm) => {
    const bucket = this.#bucket(event, vm);
    if (bucket.tokens < 1) {
      bucket.leftOut++;
      return;
    }
    bucket.tokens--;
    const { level } = EVENTS[event];
    const counted = bucket.leftOut > 0 ? { ...fields, leftOut: bucket.leftOut } : fields;
    bucket.leftOut = 0;
    this.#log[level]({ event, ...(vm === undefined ? {} : { vm }), ...counted }, message);
    if (level === 'debug') return;
    const entry: DaemonEvent = {
      seq: ++this.#seq,
      time: wallTime(),
      event,
      level,
      ...(vm === undefined ? {} : { vm }),
      message,
      fields: counted,
    };
    this.#recent.push(entry);
    if (this.#recent.length > KEPT) this.#recent.shift();
    for (const follower of this.#followers) follower(entry);
  };

  /** Events after `sinceSeq`, as far as they are still known. */
  recent(sinceSeq: number): DaemonEvent[] {
    return this.#recent.filter((entry) => entry.seq > sinceSeq);
  }

  subscribe(follower: (event: DaemonEvent) => void): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  /** A VM is gone: so is what was counted for it. */
  forget(vm: string): void {
    this.#buckets.delete(vm);
  }

  #bucket(event: EventName, vm = ''): Bucket {
    let kinds = this.#buckets.get(vm);
    if (kinds === undefined) {
      kinds = new Map<EventName, Bucket>();
      this.#buckets.set(vm, kinds);
    }
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
