import t from 'tap';
import {
  configAccess,
  empty,
  encodeConfig,
  encodeU64,
  encodeVringState,
  logRegion,
  memoryTable,
  PayloadError,
  singleRegion,
  u64,
  vringAddress,
  vringFd,
  vringState,
  type Codec,
} from '../../../protocol/vhost-user/payloads.js';
import { decodeHeader, encodeMessage } from '../../../protocol/vhost-user/header.js';

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
}

/** A second decoder that knows nothing but little-endian fields of given widths. */
function fields(bytes: Uint8Array, ...widths: number[]): bigint[] {
  let at = 0;
  return widths.map((width) => {
    let value = 0n;
    for (let n = width - 1; n >= 0; n--) value = (value << 8n) | BigInt(bytes[at + n] ?? 0);
    at += width;
    return value;
  });
}

void t.test('header: captured GET_FEATURES and SET_VRING_NUM of QEMU', (t) => {
  t.same(decodeHeader(hex('01000000 01000000 00000000')), { request: 1, flags: 1, payloadBytes: 0 });
  t.same(decodeHeader(hex('08000000 09000000 08000000')), { request: 8, flags: 9, payloadBytes: 8 });
  t.same(
    encodeMessage(1, 4, hex('0102')),
    hex('01000000 05000000 02000000 0102'),
    'replies carry the version',
  );
  t.end();
});

void t.test('payloads agree with a naive decoder', (t) => {
  const region = hex('0000000100000000 0000004000000000 000040d0ff7f0000 0010000000000000');
  const [gpa, sizeBytes, userAddr, mmapOffset] = fields(region, 8, 8, 8, 8);
  t.same(singleRegion.decode(new Uint8Array([...hex('0000000000000000'), ...region])), {
    gpa,
    sizeBytes,
    userAddr,
    mmapOffset,
  });
  t.same(memoryTable.decode(new Uint8Array([...hex('0200000000000000'), ...region, ...region])), [
    { gpa, sizeBytes, userAddr, mmapOffset },
    { gpa, sizeBytes, userAddr, mmapOffset },
  ]);
  const address = hex(
    '02000000 01000000 1000000000000000 2000000000000000 3000000000000000 4000000000000000',
  );
  const [index, flags, descriptor, used, available, log] = fields(address, 4, 4, 8, 8, 8, 8);
  t.same(vringAddress.decode(address), {
    index: Number(index),
    flags: Number(flags),
    descriptor,
    used,
    available,
    log,
  });
  t.same(vringState.decode(hex('0400000000010000')), { index: 4, num: 256 });
  t.same(vringFd.decode(hex('0301000000000000')), { index: 3, noFd: true });
  t.same(vringFd.decode(hex('0300000000000000')), { index: 3, noFd: false });
  t.same(logRegion.decode(hex('0010000000000000 0020000000000000')), { sizeBytes: 4096n, offset: 8192n });
  t.equal(u64.decode(hex('0100000000000080')), 0x8000000000000001n);
  const { bytes, ...access } = configAccess.decode(hex('04000000 04000000 01000000 aabbccdd'));
  t.same(access, { offset: 4, sizeBytes: 4, flags: 1 });
  t.same([...bytes], [0xaa, 0xbb, 0xcc, 0xdd]);
  t.end();
});

void t.test('what is encoded decodes to the same', (t) => {
  t.equal(u64.decode(encodeU64(0xfedcba9876543210n)), 0xfedcba9876543210n);
  t.same(vringState.decode(encodeVringState({ index: 1, num: 0xfffffffe })), { index: 1, num: 0xfffffffe });
  const { bytes, offset } = configAccess.decode(encodeConfig(3, 0, hex('0102')));
  t.equal(offset, 3);
  t.same([...bytes], [1, 2]);
  t.end();
});

void t.test('payloads of another shape are refused', (t) => {
  const wrong: [string, Codec<unknown>, Uint8Array][] = [
    ['empty with bytes', empty, hex('00')],
    ['short u64', u64, hex('00000000')],
    ['long u64', u64, hex('000000000000000000')],
    ['vring fd with reserved bits', vringFd, hex('0002000000000000')],
    ['memory table without a header', memoryTable, hex('00000000')],
    ['memory table of 9', memoryTable, new Uint8Array([9, ...new Uint8Array(7 + 9 * 32)])],
    ['memory table cut short', memoryTable, new Uint8Array([2, ...new Uint8Array(7 + 32)])],
    ['config header cut short', configAccess, hex('0000000000000000')],
    ['config longer than it says', configAccess, hex('00000000 01000000 00000000 0000')],
    ['config of 257 bytes', configAccess, new Uint8Array([0, 0, 0, 0, 1, 1, ...new Uint8Array(6 + 257)])],
    ['log of 8 bytes', logRegion, new Uint8Array(8)],
  ];
  for (const [name, codec, payload] of wrong) t.throws(() => codec.decode(payload), PayloadError, name);
  t.end();
});
