// States of the device on their way to the daemon and from it, with all that a VMM may do wrong with them.
import { crc32 } from 'node:zlib';
import { closeFd, setNonBlocking } from '../../src/os/fd.js';
import { readSome, writeSome } from '../../src/os/pipe.js';
import { socketPair } from '../../src/os/socket.js';
import { REQUEST, u32s } from '../support/wire.js';
import type { Dice } from './dice.js';

const MOST_BYTES = 65536;
const CHECKSUM_AT = 16;
const HEAD_AT = 20;

export class StateStreams {
  readonly #dice: Dice;
  /** Our ends of those that a state comes by. */
  readonly #coming: number[] = [];
  readonly #others: number[] = [];
  /** The last state that came. */
  #saved: Uint8Array = new Uint8Array(0);

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  /** SET_DEVICE_STATE_FD: the state of the device is asked for, or it is given one. The descriptor stays ours. */
  message(): { request: number; payload: Uint8Array; fds: number[] } {
    const dice = this.#dice;
    this.#take();
    const [ours, theirs] = socketPair();
    this.#others.push(theirs);
    setNonBlocking(ours);
    const isLoad = dice.chance(50);
    if (isLoad) writeSome(ours, this.#state(), 0);
    // A stream without an end is not waited for for ever.
    if (isLoad && dice.chance(95)) closeFd(ours);
    else this.#coming.push(ours);
    const direction = dice.chance(95) ? Number(isLoad) : dice.u32();
    const payload = u32s(direction, dice.chance(95) ? 0 : dice.u32());
    return { request: REQUEST.SET_DEVICE_STATE_FD, payload, fds: [theirs] };
  }

  close(): void {
    for (const fd of [...this.#coming.splice(0), ...this.#others.splice(0)]) closeFd(fd);
  }

  #take(): void {
    for (const fd of this.#coming) {
      const part = new Uint8Array(MOST_BYTES);
      const got = readSome(fd, part);
      if (got > 0) this.#saved = part.slice(0, got);
    }
  }

  /** One that came from the daemon, as it came or with a few bytes changed, or bytes that are none. */
  #state(): Uint8Array {
    const dice = this.#dice;
    if (dice.chance(20)) return dice.bytes(dice.below(400));
    const bytes = Buffer.from(this.#saved);
    if (bytes.length <= HEAD_AT) return bytes;
    for (let n = dice.below(4); n > 0; n--) bytes[dice.below(bytes.length)] = dice.word();
    const cut = dice.chance(85) ? bytes : bytes.subarray(0, HEAD_AT + dice.below(bytes.length - HEAD_AT));
    if (dice.chance(80)) cut.writeUInt32LE(crc32(cut.subarray(HEAD_AT)), CHECKSUM_AT);
    return cut;
  }
}
