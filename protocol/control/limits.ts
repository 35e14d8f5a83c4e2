/**
 * The limits of a cgroup that the daemon sets, in one table: the schema, the record, orders, the cgroup's reader, metrics
 * and balloonctl go by its rows and name no limit themselves. CONTRIBUTING.md says what a further row takes.
 */
interface LimitRow {
  /** The file of the cgroup, with bytes or `max`. Every kernel that counts memory has the file. */
  readonly file: `memory.${string}`;
  /** The field of a reading, of a record and of `cgroup` in the control API. */
  readonly field: `${string}Bytes`;
  /** The effect on the VM, for the help of balloonctl. */
  readonly effect: string;
  /** How many times the headroom lies between the limit and the memory in use, while the limit follows. */
  readonly headrooms: number;
}

/** By the name in requests, orders and options, in the order in which limits are lowered: reclaim is tried before it is forced. */
export const LIMITS = {
  high: {
    file: 'memory.high',
    field: 'highBytes',
    effect: 'beyond it, the VM is slowed down',
    headrooms: 1,
  },
  max: { file: 'memory.max', field: 'maxBytes', effect: 'beyond it, the VM is killed', headrooms: 2 },
} as const satisfies Record<string, LimitRow>;

export type LimitName = keyof typeof LIMITS;
export type LimitField = (typeof LIMITS)[LimitName]['field'];
export const LIMIT_NAMES = Object.keys(LIMITS) as LimitName[];

/** A value for each limit, by its name. */
export function byName<Value>(valueOf: (name: LimitName) => Value): Record<LimitName, Value> {
  const values = LIMIT_NAMES.map((name) => [name, valueOf(name)] as const);
  return Object.fromEntries(values) as Record<LimitName, Value>;
}

/** A value for each limit, by its field. */
export function byField<Value>(valueOf: (name: LimitName) => Value): Record<LimitField, Value> {
  const values = LIMIT_NAMES.map((name) => [LIMITS[name].field, valueOf(name)] as const);
  return Object.fromEntries(values) as Record<LimitField, Value>;
}
