/**
 * The limits of a cgroup that the daemon sets, in one table: the schema, the record, the cgroup's reader and balloonctl go
 * by its rows. CONTRIBUTING.md says what a further row takes.
 */
interface LimitRow {
  /** The file of the cgroup. */
  readonly file: string;
  /** The field of a reading, of a record and of `cgroup` in the control API. */
  readonly field: string;
}

/** In the order in which limits are lowered: reclaim is tried before it is forced. */
export const LIMITS = {
  high: { file: 'memory.high', field: 'highBytes' },
  max: { file: 'memory.max', field: 'maxBytes' },
} as const satisfies Record<string, LimitRow>;

export type LimitName = keyof typeof LIMITS;
export type LimitField = (typeof LIMITS)[LimitName]['field'];
export const LIMIT_NAMES = Object.keys(LIMITS) as LimitName[];
