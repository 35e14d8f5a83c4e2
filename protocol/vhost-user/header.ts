/**
 * The 12 bytes before every message, both ways: le32 request, le32 flags, le32 payload size ("numbers are in the
 * machine native byte order", which is little-endian on every host this daemon runs on).
 */
export const HEADER_BYTES = 12;
export const VERSION = 1;
export const FLAG_VERSION_MASK = 0x3;
export const FLAG_REPLY = 1 << 2;
export const FLAG_NEED_REPLY = 1 << 3;

/** "The maximum number of fds in one message", and of regions in SET_MEM_TABLE. */
export const MAX_FDS = 8;
/** Larger than any payload of the specification that a backend receives; beyond it the stream is not vhost-user. */
export const MAX_PAYLOAD_BYTES = 4096;

export interface Header {
  request: number;
  flags: number;
  payloadBytes: number;
}

export function decodeHeader(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  return {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    payloadBytes: view.getUint32(8, true),
  };
}

/** A whole message: header and payload. */
export function encodeMessage(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, flags | VERSION, true);
  view.setUint32(8, payload.length, true);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}
