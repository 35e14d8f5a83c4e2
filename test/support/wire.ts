// The vhost-user messages of a frontend, written by hand from the specification and byte by byte: a second
// implementation, which shares nothing with the product's codecs, so that an error in one of the two shows.

/** Bytes of a message header: request, flags and payload size, each a little-endian u32. */
export const HEADER_BYTES = 12;

/** Version 1 in the two lowest bits; every message carries it. */
export const VERSION = 0x1;
export const REPLY_FLAG = 0x4;
export const NEED_REPLY_FLAG = 0x8;

/** In the u64 of SET_VRING_KICK, CALL and ERR: no file descriptor comes with the message. */
export const NO_FD = 0x100n;

/** Requests of the frontend by their names in the specification. */
export const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  IOTLB_MSG: 22,
  SET_VRING_ENDIAN: 23,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  CREATE_CRYPTO_SESSION: 26,
  CLOSE_CRYPTO_SESSION: 27,
  POSTCOPY_ADVISE: 28,
  POSTCOPY_LISTEN: 29,
  POSTCOPY_END: 30,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  GPU_SET_SOCKET: 33,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  GET_SHARED_OBJECT: 41,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
} as const;

/** The backend's request that says the config space has changed. */
export const BACKEND_CONFIG_CHANGE_MSG = 2;

/** Protocol feature bits by their names in the specification. */
export const PROTOCOL_F = {
  MQ: 0,
  LOG_SHMFD: 1,
  REPLY_ACK: 3,
  BACKEND_REQ: 5,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  DEVICE_STATE: 19,
} as const;

/** The vhost-user bit in the virtio feature bits: protocol features can be negotiated. */
export const VHOST_USER_F_PROTOCOL_FEATURES = 30;

/** One message and the file descriptors that came, or shall go, with it. */
export interface WireMessage {
  request: number;
  flags: number;
  payload: Uint8Array;
  fds: number[];
}

/** A region as ADD_MEM_REG and SET_MEM_TABLE describe it; all in bytes. */
export interface WireRegion {
  gpa: bigint;
  lenBytes: bigint;
  userAddress: bigint;
  mmapOffset: bigint;
}

/** The virtio feature word in which just these bits are set. */
export function bits(...numbers: readonly number[]): bigint {
  return numbers.reduce((word, bit) => word | (1n << BigInt(bit)), 0n);
}

export function hasBit(word: bigint, bit: number): boolean {
  return ((word >> BigInt(bit)) & 1n) === 1n;
}

/** The request's name, for error texts. */
export function requestName(request: number): string {
  const entry = Object.entries(REQUEST).find(([, id]) => id === request);
  return entry?.[0] ?? `request ${request}`;
}

/** A whole message in bytes. `sizeBytes` lets a test lie about the payload's size. */
export function encodeMessage(
  request: number,
  flags: number,
  payload: Uint8Array,
  sizeBytes = payload.length,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, flags, true);
  view.setUint32(8, sizeBytes, true);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

export function decodeHeader(header: Uint8Array): { request: number; flags: number; sizeBytes: number } {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  return {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    sizeBytes: view.getUint32(8, true),
  };
}

/** Little-endian u32 words, one after the other. */
export function u32s(...words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * words.length);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  return bytes;
}

/** Little-endian u64 words, one after the other. */
export function u64s(...words: readonly bigint[]): Uint8Array {
  const bytes = new Uint8Array(8 * words.length);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => view.setBigUint64(8 * i, word, true));
  return bytes;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Reads a u32 of a payload; throws where the payload is too short. */
export function readU32(payload: Uint8Array, offset = 0): number {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint32(offset, true);
}

/** Reads a u64 of a payload; throws where the payload is too short. */
export function readU64(payload: Uint8Array, offset = 0): bigint {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getBigUint64(offset, true);
}

function encodeRegion(region: WireRegion): Uint8Array {
  return u64s(region.gpa, region.lenBytes, region.userAddress, region.mmapOffset);
}

/** Payload of ADD_MEM_REG and REM_MEM_REG: a u64 of padding, then the region. */
export function encodeSingleRegion(region: WireRegion): Uint8Array {
  return concat(u64s(0n), encodeRegion(region));
}

/** Payload of SET_MEM_TABLE: count, padding, regions. `count` lets a test lie. */
export function encodeMemoryTable(regions: readonly WireRegion[], count = regions.length): Uint8Array {
  return concat(u32s(count, 0), ...regions.map(encodeRegion));
}

/** Payload of SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE and SET_VRING_ENABLE. */
export function encodeVringState(index: number, num: number): Uint8Array {
  return u32s(index, num);
}

/** Payload of SET_VRING_ADDR: the rings' userspace addresses, in the specification's order. */
export function encodeVringAddress(
  index: number,
  addresses: { descriptors: bigint; used: bigint; available: bigint; flags?: number; log?: bigint },
): Uint8Array {
  return concat(
    u32s(index, addresses.flags ?? 0),
    u64s(addresses.descriptors, addresses.used, addresses.available, addresses.log ?? 0n),
  );
}

/** Payload of GET_CONFIG and SET_CONFIG: offset, size, flags, then the bytes. `sizeBytes` lets a test lie. */
export function encodeConfig(
  offset: number,
  bytes: Uint8Array,
  flags = 0,
  sizeBytes = bytes.length,
): Uint8Array {
  return concat(u32s(offset, sizeBytes, flags), bytes);
}
