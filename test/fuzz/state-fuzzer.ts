import { vmView } from '../../src/vm/view.js';
import type { Vm } from '../../src/vm/vm.js';
import { serveDevice } from '../support/served-vm.js';
import { decodeVmRecord } from '../../src/vm/record.js';
import { FrontendError } from '../../src/memory/errors.js';
import { StateError, StateFile } from '../../src/memory/state-file.js';
import { SystemError } from '../../src/os/errors.js';
import { createEventFd } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { socketPair } from '../../src/os/socket.js';
import { resources } from '../support/bystander.js';
import { encodeMessage, NEED_REPLY_FLAG, REQUEST, u64s, VERSION } from '../support/wire.js';
import { assertSame } from './assert-same.js';
import type { Dice } from './dice.js';
import { turns, until, type Fuzzer } from './fuzzer.js';
import { IDENTITY, leaveSession, STAGES, type LeftSession } from './left-session.js';
import { NamedFds } from './named-fds.js';
import { RawPeer } from './raw-peer.js';
import { mutatedJson, type Json } from './record-mutations.js';
import { SLOT_FIELDS, StateImage } from './state-image.js';

/** Where the small facts are. */
const HEAD_BYTES = 1024;
/** Beyond that, what is taken is not in proportion to what was found. */
const MOST_BYTES = 256 * 2 ** 20;

/** State files of sessions that were served, changed at random: they are gone on with, or refused by an error. */
export class StateFuzzer implements Fuzzer {
  readonly name = 'state';
  #left: LeftSession[] = [];

  async run(dice: Dice): Promise<void> {
    if (this.#left.length === 0) for (const stage of STAGES) this.#left.push(await leaveSession(stage));
    const before = resources();
    const left = this.#left[dice.below(this.#left.length)];
    if (left === undefined) return;
    const other = this.#left[dice.below(this.#left.length)] ?? left;
    await resume(dice, left, other);
    assertSame(resources(), before, 'what is open and mapped after it was gone on with');
    const { arrayBuffers, heapUsed } = process.memoryUsage();
    if (arrayBuffers + heapUsed > MOST_BYTES) throw new Error(`${arrayBuffers + heapUsed} bytes in use`);
  }

  close(): Promise<void> {
    for (const { fds } of this.#left.splice(0)) fds.close();
    return Promise.resolve();
  }
}

async function resume(dice: Dice, left: LeftSession, other: LeftSession): Promise<void> {
  const image = new StateImage(left.bytes, left.offset);
  const [ours, theirs] = socketPair();
  const oddFds = [createEventFd(), createMemfd('odd', dice.pick([0, 4096, 2 ** 23]))];
  const change = new Map([[left.connection, ours]]);
  for (const name of left.fds.names) {
    if (dice.chance(1)) change.set(name, oddFds[dice.below(oddFds.length)] ?? ours);
  }
  const fds = left.fds.next(change);
  fds.slow = dice.chance(30);
  const peer = new RawPeer(theirs);
  // The beginning of what the VMM said while no daemon ran.
  const said = dice.below(4);
  for (let n = 0; n < said; n++) peer.send(encodeMessage(REQUEST.GET_FEATURES, VERSION, u64s()), []);
  if (dice.chance(90)) mutate(dice, image, other, fds);
  const fd = image.open();
  for (const each of [...oddFds, ours]) closeFd(each);
  try {
    await serve(dice, fd, fds, peer);
  } finally {
    peer.close();
    fds.close();
  }
}

/** Opens it as a daemon does, and talks to what goes on, if it does. */
async function serve(dice: Dice, fd: number, fds: NamedFds, peer: RawPeer): Promise<void> {
  let vm: Vm;
  const life = { ended: false };
  let state: StateFile | null = null;
  try {
    state = StateFile.open(fd);
    const found = decodeVmRecord(state.record());
    const connection = fds.claim(found.connection);
    if (connection === null) throw new StateError('its connection is not there');
    const handOver = { keeper: fds, state, found };
    ({ vm } = serveDevice(connection, IDENTITY, handOver, nothing, () => (life.ended = true)));
  } catch (error) {
    if (!isRefusal(error)) throw error;
    // Everything is left as it was, for a daemon that understands it.
    state?.letGo();
    fds.closeClaimed();
    closeFd(fd);
    return;
  }
  for (let n = dice.below(6); n > 0 && !life.ended; n--) {
    const request = dice.pick([REQUEST.GET_FEATURES, REQUEST.SET_OWNER, REQUEST.GET_PROTOCOL_FEATURES]);
    peer.send(encodeMessage(request, VERSION | NEED_REPLY_FLAG, u64s()), []);
    await turns(2);
    peer.read();
    JSON.stringify(vmView(vm, null));
  }
  vm.close();
  await until(() => life.ended, 'the VM ends');
}

function isRefusal(error: unknown): boolean {
  return error instanceof StateError || error instanceof SystemError || error instanceof FrontendError;
}

function mutate(dice: Dice, image: StateImage, other: LeftSession, fds: NamedFds): void {
  const { bytes } = image;
  switch (dice.below(8)) {
    case 0:
      for (let n = dice.below(8); n >= 0; n--) flip(bytes, dice.below(HEAD_BYTES), dice);
      break;
    case 1:
      for (let n = dice.below(8); n >= 0; n--) flip(bytes, dice.below(HEAD_BYTES), dice);
      image.seal();
      break;
    case 2:
      image.bytes = bytes.slice(0, dice.pick([0, 4096, dice.below(bytes.length), bytes.length - 4096]));
      break;
    case 3: {
      const at = dice.below(bytes.length);
      bytes.set(other.bytes.subarray(at, at + dice.below(HEAD_BYTES)).subarray(0, bytes.length - at), at);
      if (dice.chance(50)) image.seal();
      break;
    }
    case 4: {
      const fields = Object.keys(SLOT_FIELDS) as (keyof typeof SLOT_FIELDS)[];
      const field = fields[dice.below(fields.length)] ?? 'seq';
      image.setField(field, dice.chance(50) ? dice.u32() : (image.field(field) + dice.below(64) - 32) >>> 0);
      break;
    }
    case 5:
      image.offset = dice.pick([0, image.offset + dice.below(64) - 32, dice.below(2 ** 31)]);
      break;
    default: {
      const record = JSON.parse(image.record) as Json;
      const text = JSON.stringify(mutatedJson(dice, record, fds.names));
      image.record = dice.chance(97) ? text : text.slice(0, dice.below(text.length));
    }
  }
  // Where ledgers and rings are, anything may stand.
  if (dice.chance(20))
    for (let n = 0; n < 16; n++) flip(image.bytes, 512 + dice.below(image.bytes.length), dice);
}

function flip(bytes: Uint8Array, at: number, dice: Dice): void {
  if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << dice.below(8));
}

function nothing(): void {
  // Events are for operators.
}
