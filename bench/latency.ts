import { setTimeout as sleep } from 'node:timers/promises';
import { encodeMessage, FLAG_NEED_REPLY, HEADER_BYTES } from '../protocol/vhost-user/header.js';
import { encodeConfig, encodeU64 } from '../protocol/vhost-user/payloads.js';
import { FrontendRequest, ProtocolFeature } from '../protocol/vhost-user/requests.js';
import { featureMask } from '../protocol/virtio/features.js';
import { closeFd } from '../src/os/fd.js';
import { connectUnix, receive, send } from '../src/os/socket.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { kicks, patterns, type Pattern } from './patterns.js';
import { FIRST_PFN, RawDriver } from './raw-driver.js';
import { percentile, report, type Row } from './table.js';

/**
 * What a driver waits for when no VMM is in the way: the ack of a buffer of 256 pages, and the config reads and writes
 * that come with each. The driver looks at the ring without a pause, from a core of its own.
 */
const MIB = 256;
const PAGES = (MIB * 2 ** 20) / 4096;
const ROUNDS = 6;
const WARM_ROUNDS = 2;
const CONFIG_READS = 4000;

function row(what: string, micros: readonly number[]): Row {
  return {
    what,
    'p50 µs': percentile(micros, 50).toFixed(0),
    'p90 µs': percentile(micros, 90).toFixed(0),
    'p99 µs': percentile(micros, 99).toFixed(0),
    'max µs': Math.max(...micros).toFixed(0),
  };
}

async function acks(driver: RawDriver, pattern: Pattern): Promise<{ inflate: number[]; deflate: number[] }> {
  const inflate: number[] = [];
  const deflate: number[] = [];
  const buffers = [...kicks(pattern)];
  for (let round = 0; round < ROUNDS; round++) {
    driver.populate(MIB);
    const into = round < WARM_ROUNDS ? { inflate: [], deflate: [] } : { inflate, deflate };
    for (const buffer of buffers) into.inflate.push(driver.inflate(buffer));
    await sleep(200);
    for (const buffer of buffers) into.deflate.push(driver.deflate(buffer));
  }
  return { inflate, deflate };
}

/** Requests and replies over a connection of its own, on which nothing but looking for the reply is done. */
function config(socketPath: string): Row[] {
  const fd = connectUnix(socketPath);
  const into = new Uint8Array(256);
  const say = (request: number, payload: Uint8Array, needReply: boolean, replyBytes: number): number => {
    const message = encodeMessage(request, needReply ? FLAG_NEED_REPLY : 0, payload);
    const start = process.hrtime.bigint();
    send(fd, message, 0, message.length, []);
    for (let got = 0; got < replyBytes;) got += Math.max(0, receive(fd, into, got, replyBytes - got, []));
    return Number(process.hrtime.bigint() - start) / 1000;
  };
  const { VHOST_USER_PROTOCOL_F_CONFIG: CONFIG, VHOST_USER_PROTOCOL_F_REPLY_ACK: REPLY_ACK } =
    ProtocolFeature;
  say(FrontendRequest.SET_PROTOCOL_FEATURES, encodeU64(featureMask(CONFIG, REPLY_ACK)), false, 0);
  const space = encodeConfig(0, 0, new Uint8Array(16));
  const read: number[] = [];
  const write: number[] = [];
  for (let n = 0; n < CONFIG_READS; n++) {
    read.push(say(FrontendRequest.GET_CONFIG, space, false, HEADER_BYTES + space.length));
    write.push(say(FrontendRequest.SET_CONFIG, space, true, HEADER_BYTES + 8));
  }
  closeFd(fd);
  return [
    row('GET_CONFIG and its reply', read.slice(CONFIG_READS / 4)),
    row('SET_CONFIG and its acknowledgement', write.slice(CONFIG_READS / 4)),
  ];
}

const daemon = await DaemonProcess.start();
const rows: Row[] = [];
try {
  for (const mustTellHost of [true, false]) {
    const driver = await RawDriver.start({ socketPath: daemon.socketPath, mib: MIB, mustTellHost });
    for (const pattern of patterns(FIRST_PFN, PAGES)) {
      const { inflate, deflate } = await acks(driver, pattern);
      const how = mustTellHost ? 'discarded behind' : 'discarded before the ack';
      rows.push(row(`inflate, ${pattern.name}, ${how}`, inflate));
      if (mustTellHost) rows.push(row(`deflate, ${pattern.name}`, deflate));
    }
    driver.close();
  }
  rows.push(...config(daemon.socketPath));
} finally {
  await daemon.stop();
}
report('latency', rows);
