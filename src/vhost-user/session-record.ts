import { Type, type Static } from '../../protocol/json-schema.js';
import { MAX_MEM_SLOTS, type FoundRegion } from '../memory/guest-memory.js';
import type { GuestRegion } from '../memory/region.js';
import { MAX_QUEUE_SIZE } from '../../protocol/virtio/ring-split.js';

/**
 * What is written down of a session for the process that goes on with it. File descriptors are the names they are kept
 * under, 64-bit numbers are texts. What is not here is in guest memory (where split rings stand) or in the words,
 * ring positions and areas of the state file.
 */
const Name = Type.String({ minLength: 1, maxLength: 64 });
const Fd = Type.Union([Name, Type.Null()]);
const U64 = Type.String({ pattern: '^0x[0-9a-f]{1,16}$' });
const U32 = Type.Integer({ minimum: 0, maximum: 0xffffffff });
/** Characters of a sentence; longer ones are cut. */
export const MAX_REASON = 500;
const Bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Area = Type.Object({ offset: Bytes, lenBytes: Bytes });

export const VringRecord = Type.Object({
  size: Type.Integer({ minimum: 0, maximum: MAX_QUEUE_SIZE }),
  base: U32,
  enabled: Type.Boolean(),
  address: Type.Union([
    Type.Object({ flags: U32, descriptor: U64, used: U64, available: U64, log: U64 }),
    Type.Null(),
  ]),
  kick: Fd,
  call: Fd,
  err: Fd,
  /** Why it was stopped, until the driver starts it anew. */
  broken: Type.Union([Type.String({ maxLength: MAX_REASON }), Type.Null()]),
});
export type VringRecord = Static<typeof VringRecord>;

const RegionRecord = Type.Object({
  gpa: U64,
  sizeBytes: U64,
  userAddr: U64,
  mmapOffset: U64,
  fd: Name,
  ledger: Area,
  /** Backing pages of hugetlbfs that the guest misses; absent elsewhere, and in records of earlier builds. */
  missing: Type.Optional(Area),
  /** Part of it was gone, and nothing may be read of it any more. */
  lost: Type.Boolean(),
});
type RegionRecord = Static<typeof RegionRecord>;

export const SessionRecord = Type.Object({
  state: Type.Union([Type.Literal('connected'), Type.Literal('running'), Type.Literal('stopped')]),
  features: U64,
  protocolFeatures: U64,
  status: Type.Integer({ minimum: 0, maximum: 255 }),
  vrings: Type.Array(VringRecord, { maxItems: 16 }),
  regions: Type.Array(RegionRecord, { maxItems: MAX_MEM_SLOTS }),
  channel: Fd,
  /** Queues that the VMM has; absent: that is not known. */
  present: Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
  dirtyLog: Type.Union([Type.Object({ sizeBytes: U64, offset: U64, fd: Name }), Type.Null()]),
});
export type SessionRecord = Static<typeof SessionRecord>;

export function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

/** A region as it is written down; `nameOf` has the name of an fd. */
export function regionRecord(
  { description, fd, ledger, missing, lost }: GuestRegion,
  nameOf: (fd: number) => string,
): RegionRecord {
  return {
    gpa: hex(description.gpa),
    sizeBytes: hex(description.sizeBytes),
    userAddr: hex(description.userAddr),
    mmapOffset: hex(description.mmapOffset),
    fd: nameOf(fd),
    ledger: ledger.area,
    ...(missing !== null && { missing: missing.area }),
    lost,
  };
}

/** The region that was written down; `fdOf` hands over the fd of a name. */
export function foundRegion(
  { gpa, sizeBytes, userAddr, mmapOffset, fd, ...pages }: RegionRecord,
  fdOf: (name: string) => number,
): FoundRegion {
  return {
    description: {
      gpa: BigInt(gpa),
      sizeBytes: BigInt(sizeBytes),
      userAddr: BigInt(userAddr),
      mmapOffset: BigInt(mmapOffset),
    },
    fd: fdOf(fd),
    pages,
  };
}
