export type EventLevel = 'debug' | 'info' | 'warn' | 'error';

/** What is said of an event in the catalog. */
export interface EventKind {
  readonly level: EventLevel;
  /** What happened. */
  readonly help: string;
  /** What the operator should do; null when nothing. */
  readonly action: string | null;
}
