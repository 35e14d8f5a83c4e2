import { Type, type Static } from '../../protocol/json-schema.js';
import { Check, Errors } from 'typebox/schema';
import { StateError } from '../memory/state-file.js';
import { fromBoot, fromWall, type BootMs, type Monotonic, type WallMs } from '../os/clock.js';
import { byName } from '../../protocol/control/limits.js';
import { DEVICE_KINDS, type DeviceKind } from './kinds.js';
import { LimitsRecord } from './limits.js';
import { MAX_REASON, SessionRecord } from '../vhost-user/session-record.js';

/**
 * What is written down of a VM for the daemon that goes on with it. A change of its meaning is a new version and one
 * more entry in UPGRADES: a daemon takes over from any older one. `version`, `name` and `connection` stay what they are
 * in all versions, so that an older daemon knows what to leave alone.
 */
const VERSION = 2;

const Word = Type.Union([
  Type.Integer({ minimum: 0 }),
  Type.Literal('max'),
  Type.Literal('follow'),
  Type.Null(),
]);
/** A build that knew fewer limits wrote nothing of the others. */
const ForcedFrom = Type.Object(byName(() => Type.Optional(Word)));
type ForcedFrom = Static<typeof ForcedFrom>;

const Wall = Type.Unsafe<WallMs>(Type.Number());
const Boot = Type.Unsafe<BootMs>(Type.Number());

const Trouble = Type.Object({
  /** Other builds may know others. */
  code: Type.String({ maxLength: 64 }),
  text: Type.String({ maxLength: MAX_REASON }),
  remedy: Type.String({ maxLength: MAX_REASON }),
});

const VmRecord = Type.Object({
  version: Type.Literal(VERSION),
  name: Type.String({ minLength: 1, maxLength: 128 }),
  pid: Type.Integer({ minimum: 0 }),
  /** Path of the socket that it connected to, where the configuration has something for it. */
  socket: Type.Union([Type.String(), Type.Null()]),
  /** What it is served with; nothing is said of the first of DEVICE_KINDS. */
  device: Type.Optional(Type.Unsafe<DeviceKind>(Type.Union(DEVICE_KINDS.map((kind) => Type.Literal(kind))))),
  /** What was offered: it stays so, whatever the configuration says now. */
  features: Type.Array(Type.String()),
  inhibited: Type.Union([Type.String(), Type.Null()]),
  /** The limits that it had when the policy began to hold it to less. */
  forcedFrom: Type.Optional(Type.Union([ForcedFrom, Type.Null()])),
  /** The policy leaves it alone. */
  manual: Type.Optional(Type.Boolean()),
  wantedMemoryBytes: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  /** By wall time, for daemons that know nothing else; those that do go by the boot clock. */
  connectedAt: Wall,
  connectedBootMs: Type.Optional(Boot),
  /** The trouble that was found, for the verdict: in words for builds that know no codes, and as a diagnosis. */
  problem: Type.Union([Type.String({ maxLength: MAX_REASON }), Type.Null()]),
  diagnosis: Type.Optional(Type.Union([Trouble, Type.Null()])),
  /**
   * The book of orders is what counts, and `inhibited`, `manual` and `wantedMemoryBytes` are for builds that have none. A
   * record without it was written by such a build, and its words are the operator's last.
   */
  booked: Type.Optional(Type.Boolean()),
  /** The last that the guest sent. */
  stats: Type.Union([
    Type.Object({
      receivedAt: Wall,
      receivedBootMs: Type.Optional(Boot),
      values: Type.Record(Type.String(), Type.Number()),
    }),
    Type.Null(),
  ]),
  connection: Type.String(),
  /** Absent in records of daemons that had no limits. */
  limits: Type.Optional(LimitsRecord),
  session: SessionRecord,
});
export type VmRecord = Static<typeof VmRecord>;

type Json = Readonly<Record<string, unknown>>;

/** From version n + 1 of the record to the next. What they make is checked, so they take anything. */
const UPGRADES: readonly ((record: Json) => Json)[] = [
  // Of what went wrong and of statistics nothing was known to the next daemon.
  (record) => {
    const session = asObject(record['session']);
    return {
      ...record,
      version: 2,
      problem: null,
      stats: null,
      session: {
        ...session,
        vrings: withEach(session['vrings'], { broken: null }),
        regions: withEach(session['regions'], { lost: false }),
      },
    };
  },
];

export function encodeVmRecord(record: Omit<VmRecord, 'version'>): string {
  return JSON.stringify({ version: VERSION, ...record });
}

/** Throws StateError. */
export function decodeVmRecord(text: string): VmRecord {
  let current = parsed(text);
  if (current === null) throw new StateError('its record is no JSON object');
  const version = current['version'];
  if (typeof version !== 'number' || !Number.isInteger(version) || version < 1) {
    throw new StateError('its record has no version');
  }
  if (version > VERSION) {
    throw new StateError(
      `a newer balloond served the VM, with records of version ${version}, and this balloond knows ${VERSION}: start the newer balloond again, which goes on with the VM, and do not reboot the VM before`,
    );
  }
  for (const upgrade of UPGRADES.slice(version - 1)) current = upgrade(current);
  if (!Check(VmRecord, current)) {
    const [, [first]] = Errors(VmRecord, current);
    throw new StateError(`its record: ${first?.instancePath ?? ''} ${first?.message ?? 'is wrong'}`);
  }
  return current;
}

/** A moment of a record: records of older daemons have it by wall time alone. */
export function momentOf(bootMs: BootMs | undefined, wallMs: WallMs): Monotonic {
  return bootMs === undefined ? fromWall(wallMs) : fromBoot(bootMs);
}

/** What can be told of a record that cannot be gone on with. */
export function identifyVm(text: string): { name: string | null; connection: string | null } {
  const { name, connection } = parsed(text) ?? {};
  return {
    name: typeof name === 'string' ? name : null,
    connection: typeof connection === 'string' ? connection : null,
  };
}

function parsed(text: string): Json | null {
  try {
    const record: unknown = JSON.parse(text);
    return typeof record === 'object' && record !== null ? (record as Json) : null;
  } catch {
    return null;
  }
}

function asObject(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}

function withEach(list: unknown, added: Json): unknown {
  return Array.isArray(list) ? list.map((entry: unknown) => ({ ...asObject(entry), ...added })) : list;
}
