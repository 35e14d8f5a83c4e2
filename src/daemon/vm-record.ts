import { Type, type Static } from 'typebox';
import { Value } from 'typebox/value';
import { StateError } from '../memory/state-file.js';
import { SessionRecord } from '../vhost-user/session-record.js';

/**
 * What is written down of a VM for the daemon that goes on with it. A change of its meaning is a new version and one
 * more entry in UPGRADES: a daemon takes over from any older one.
 */
const VERSION = 1;

const VmRecord = Type.Object({
  version: Type.Literal(VERSION),
  name: Type.String({ minLength: 1, maxLength: 128 }),
  pid: Type.Integer({ minimum: 0 }),
  /** Path of the socket that it connected to, where the configuration has something for it. */
  socket: Type.Union([Type.String(), Type.Null()]),
  /** What it is served with; nothing is said of the traditional balloon. */
  device: Type.Optional(Type.Literal('cache-balloon')),
  /** What was offered: it stays so, whatever the configuration says now. */
  features: Type.Array(Type.String()),
  inhibited: Type.Union([Type.String(), Type.Null()]),
  wantedMemoryBytes: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  connectedAt: Type.Number(),
  connection: Type.String(),
  session: SessionRecord,
});
export type VmRecord = Static<typeof VmRecord>;

/** From version n + 1 of the record to the next. */
const UPGRADES: readonly ((record: Record<string, unknown>) => Record<string, unknown>)[] = [];

export function encodeVmRecord(record: Omit<VmRecord, 'version'>): string {
  return JSON.stringify({ version: VERSION, ...record });
}

/** Throws StateError. */
export function decodeVmRecord(text: string): VmRecord {
  let record: unknown;
  try {
    record = JSON.parse(text);
  } catch {
    throw new StateError('its record is not JSON');
  }
  if (typeof record !== 'object' || record === null) throw new StateError('its record is no object');
  let current = record as Record<string, unknown>;
  const version = current['version'];
  if (typeof version !== 'number' || !Number.isInteger(version) || version < 1) {
    throw new StateError('its record has no version');
  }
  if (version > VERSION) {
    throw new StateError(`a record of version ${version}, and this balloond knows ${VERSION}`);
  }
  for (const upgrade of UPGRADES.slice(version - 1)) current = upgrade(current);
  if (!Value.Check(VmRecord, current)) {
    const [first] = Value.Errors(VmRecord, current);
    throw new StateError(`its record: ${first?.instancePath ?? ''} ${first?.message ?? 'is wrong'}`);
  }
  return current;
}
