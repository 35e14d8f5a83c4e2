/**
 * Payload codecs (docs/interop/vhost-user.rst, "Message payload"). Decoders check shape only, throw PayloadError
 * when the bytes cannot be this payload, and leave meaning to the session.
 */
export class PayloadError extends Error {
  override readonly name = 'PayloadError';
}

/** A payload's exact length in bytes, or the least one, and how to read it. */
export interface Codec<T> {
  decode(payload: Uint8Array): T;
}

function viewOf(payload: Uint8Array): DataView {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
}

function exactly<T>(lengthBytes: number, read: (view: DataView) => T): Codec<T> {
  return {
    decode(payload) {
      if (payload.length !== lengthBytes) {
        throw new PayloadError(`payload is ${payload.length} bytes long, ${lengthBytes} expected`);
      }
      return read(viewOf(payload));
    },
  };
}

export const empty: Codec<undefined> = exactly(0, () => undefined);

export const u64: Codec<bigint> = exactly(8, (view) => view.getBigUint64(0, true));

export interface VringState {
  index: number;
  num: number;
}
export const vringState: Codec<VringState> = exactly(8, (view) => ({
  index: view.getUint32(0, true),
  num: view.getUint32(4, true),
}));

/** Addresses of the ring's parts are frontend user addresses; `log` is a guest address. */
export interface VringAddress {
  index: number;
  flags: number;
  descriptor: bigint;
  used: bigint;
  available: bigint;
  log: bigint;
}
export const VHOST_VRING_F_LOG = 1;
export const vringAddress: Codec<VringAddress> = exactly(40, (view) => ({
  index: view.getUint32(0, true),
  flags: view.getUint32(4, true),
  descriptor: view.getBigUint64(8, true),
  used: view.getBigUint64(16, true),
  available: view.getBigUint64(24, true),
  log: view.getBigUint64(32, true),
}));

/** SET_VRING_KICK/CALL/ERR: bits 0-7 are the index, bit 8 says that no fd comes along. */
export interface VringFd {
  index: number;
  noFd: boolean;
}
export const vringFd: Codec<VringFd> = exactly(8, (view) => {
  const word = view.getBigUint64(0, true);
  if (word >> 9n !== 0n)
    throw new PayloadError(`reserved bits are set in vring fd word 0x${word.toString(16)}`);
  return { index: Number(word & 0xffn), noFd: (word & 0x100n) !== 0n };
});

/** One range of guest memory: where the guest sees it, where the frontend mapped it, where in the fd it starts. */
export interface RegionDescription {
  gpa: bigint;
  sizeBytes: bigint;
  userAddr: bigint;
  mmapOffset: bigint;
}
const REGION_BYTES = 32;

function readRegion(view: DataView, at: number): RegionDescription {
  return {
    gpa: view.getBigUint64(at, true),
    sizeBytes: view.getBigUint64(at + 8, true),
    userAddr: view.getBigUint64(at + 16, true),
    mmapOffset: view.getBigUint64(at + 24, true),
  };
}

/** ADD_MEM_REG, REM_MEM_REG: le64 padding, then the region. */
export const singleRegion: Codec<RegionDescription> = exactly(8 + REGION_BYTES, (view) =>
  readRegion(view, 8),
);

/** SET_MEM_TABLE: le32 count, le32 padding, regions. A frontend may send the table's full size. */
export const memoryTable: Codec<RegionDescription[]> = {
  decode(payload) {
    if (payload.length < 8) throw new PayloadError(`memory table is only ${payload.length} bytes long`);
    const view = viewOf(payload);
    const count = view.getUint32(0, true);
    if (count > 8 || payload.length < 8 + count * REGION_BYTES) {
      throw new PayloadError(
        `memory table of ${payload.length} bytes cannot hold ${count} regions (8 at most)`,
      );
    }
    return Array.from({ length: count }, (_, n) => readRegion(view, 8 + n * REGION_BYTES));
  },
};

/** "Maximum length of the config space"; frontends allocate this much. */
const MAX_CONFIG_BYTES = 256;
const CONFIG_HEADER_BYTES = 12;

/** GET_CONFIG, SET_CONFIG: le32 offset, le32 size, le32 flags, bytes. */
interface ConfigAccess {
  offset: number;
  sizeBytes: number;
  flags: number;
  /** A view into the message, valid until the next one is read. */
  bytes: Uint8Array;
}
export const configAccess: Codec<ConfigAccess> = {
  decode(payload) {
    if (payload.length < CONFIG_HEADER_BYTES) throw new PayloadError('config access without its header');
    const view = viewOf(payload);
    const offset = view.getUint32(0, true);
    const sizeBytes = view.getUint32(4, true);
    if (sizeBytes > MAX_CONFIG_BYTES || payload.length !== CONFIG_HEADER_BYTES + sizeBytes) {
      throw new PayloadError(
        `config access of ${sizeBytes} bytes in a payload of ${payload.length} (${MAX_CONFIG_BYTES} bytes at most)`,
      );
    }
    return {
      offset,
      sizeBytes,
      flags: view.getUint32(8, true),
      bytes: payload.subarray(CONFIG_HEADER_BYTES),
    };
  },
};

/** SET_DEVICE_STATE_FD: le32 direction, 0 out of the device and 1 into it, le32 phase, of which there is 0: the device is stopped. */
export const stateTransfer: Codec<'save' | 'load'> = exactly(8, (view) => {
  const [direction, phase] = [view.getUint32(0, true), view.getUint32(4, true)];
  if (direction > 1 || phase > 0)
    throw new PayloadError(`a transfer of state in direction ${direction} and phase ${phase}`);
  return direction === 0 ? 'save' : 'load';
});

/** SET_LOG_BASE with LOG_SHMFD: le64 size, le64 offset into the fd. */
export interface LogRegion {
  sizeBytes: bigint;
  offset: bigint;
}
export const logRegion: Codec<LogRegion> = exactly(16, (view) => ({
  sizeBytes: view.getBigUint64(0, true),
  offset: view.getBigUint64(8, true),
}));

export function encodeLogRegion({ sizeBytes, offset }: LogRegion): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, sizeBytes, true);
  view.setBigUint64(8, offset, true);
  return bytes;
}

export function encodeU64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

export function encodeVringState(state: VringState): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, state.index, true);
  view.setUint32(4, state.num, true);
  return bytes;
}

/** A GET_CONFIG reply: the same header, then `bytes`. */
export function encodeConfig(offset: number, flags: number, bytes: Uint8Array): Uint8Array {
  const payload = new Uint8Array(CONFIG_HEADER_BYTES + bytes.length);
  const view = new DataView(payload.buffer);
  view.setUint32(0, offset, true);
  view.setUint32(4, bytes.length, true);
  view.setUint32(8, flags, true);
  payload.set(bytes, CONFIG_HEADER_BYTES);
  return payload;
}
