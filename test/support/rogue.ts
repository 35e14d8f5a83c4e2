// VMs that do one bad thing, over and over, as fast as they can.
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { SystemError } from '../../src/os/errors.js';
import { createEventFd, signalEvent } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { connectUnix, receive, send } from '../../src/os/socket.js';
import { BalloonDriver, type Role } from './balloon-driver.js';
import { Frontend } from './frontend.js';
import { GuestRam, PAGE_BYTES } from './guest-ram.js';
import { pfns } from './served-vm.js';
import { ANY_VMM } from './vmm-orders.js';
import {
  concat,
  encodeMessage,
  encodeVringState,
  NEED_REPLY_FLAG,
  REQUEST,
  u32s,
  u64s,
  VERSION,
} from './wire.js';

const RAM_BYTES = 32 * 2 ** 20;
const FIRST_PFN = 4096;
const BUFFER_GPA = 8 * 2 ** 20;
/** The longest buffer that is served. */
const HUGE_PFNS = 8192;
const MOST_FDS = 253;
const BURST = 64;
const REPLY_ACK = 1n << 3n;

const GET_FEATURES = encodeMessage(REQUEST.GET_FEATURES, VERSION, u64s());
const ACK_REPLIES = encodeMessage(REQUEST.SET_PROTOCOL_FEATURES, VERSION, u64s(REPLY_ACK));

/** A connection without a VMM: what does not fit is not sent, and who is dropped comes again. */
class Line {
  readonly #path: string;
  readonly #scratch = new Uint8Array(65536);
  #fd: number;

  constructor(path: string) {
    this.#path = path;
    this.#fd = connectUnix(path);
  }

  say(bytes: Uint8Array, fds: readonly number[] = []): boolean {
    return this.#guard(() => send(this.#fd, bytes, 0, bytes.length, fds) === bytes.length);
  }

  listen(): void {
    this.#guard(() => {
      const fds: number[] = [];
      const got = receive(this.#fd, this.#scratch, 0, this.#scratch.length, fds);
      fds.forEach(closeFd);
      if (got === 0) this.again();
      return true;
    });
  }

  again(): void {
    this.close();
    try {
      this.#fd = connectUnix(this.#path);
    } catch {
      // Too many wait to be accepted: at the next word.
    }
  }

  close(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }

  #guard(work: () => boolean): boolean {
    if (this.#fd < 0) this.again();
    try {
      return this.#fd >= 0 && work();
    } catch {
      this.again();
      return false;
    }
  }
}

/** What is done once more with each call; `close` ends it. */
interface Act {
  step: () => Promise<void> | void;
  close: () => void;
}

function withLine(path: string, step: (line: Line) => void): Promise<Act> {
  const line = new Line(path);
  return Promise.resolve({ step: () => step(line), close: () => line.close() });
}

async function withDriver(
  path: string,
  step: (driver: BalloonDriver, frontend: Frontend) => Promise<void> | void,
): Promise<Act> {
  const frontend = new Frontend({
    socket: path,
    ram: new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]),
    order: ANY_VMM,
  });
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend, { pfnsPerBuffer: 1024 });
  return { step: () => step(driver, frontend), close: () => frontend.close() };
}

/** Gives one buffer of page numbers away and does not wait for long. */
async function offer(driver: BalloonDriver, role: Role, gpa: number, len: number): Promise<void> {
  const ring = driver.ring(role);
  ring.collectUsed();
  if (ring.outstanding < ring.size / 2) ring.add([{ gpa, len }]);
  ring.kick({ force: true });
  await turn();
}

export const ROGUES = {
  'kick flood': (path: string) =>
    withDriver(path, (driver) => {
      for (let n = 0; n < BURST; n++) signalEvent(driver.ring('inflate').kickFd);
    }),
  'message flood': (path: string) =>
    withLine(path, (line) => {
      line.say(concat(...Array.from({ length: 16 }, () => GET_FEATURES)));
      line.listen();
    }),
  'malformed messages': (path: string) => {
    const bad = encodeMessage(REQUEST.SET_VRING_NUM, VERSION | NEED_REPLY_FLAG, encodeVringState(99, 3));
    return withLine(path, (line) => {
      line.say(concat(ACK_REPLIES, bad, bad, bad, bad));
      line.listen();
    });
  },
  'malformed chains': (path: string): Promise<Act> => {
    const state: { act: Act | null } = { act: null };
    return Promise.resolve({
      // A ring that broke stays so: the next one is a new VM's.
      step: async () => {
        state.act ??= await withDriver(path, () => undefined);
        state.act.close();
        state.act = await withDriver(path, (driver) => {
          for (let n = 0; n < 16; n++) driver.ring('deflate').add([{ gpa: 2 ** 50, len: 4 }]);
          driver.ring('deflate').kick({ force: true });
        });
        await state.act.step();
      },
      close: () => state.act?.close(),
    });
  },
  'huge buffers': (path: string) =>
    withDriver(path, (driver, { ram }) => {
      if (driver.ring('inflate').outstanding === 0) {
        ram.write(
          BUFFER_GPA,
          u32s(...Array.from({ length: HUGE_PFNS }, (_, n) => FIRST_PFN + ((n * 7) % 4096))),
        );
      }
      return offer(driver, 'inflate', BUFFER_GPA, 4 * HUGE_PFNS);
    }),
  reports: (path: string) =>
    withDriver(path, (driver) =>
      driver.report(pfns(FIRST_PFN, 32).map((pfn) => ({ gpa: pfn * PAGE_BYTES, len: PAGE_BYTES }))),
    ),
  'inflate and deflate': (path: string) =>
    withDriver(path, async (driver) => {
      await driver.tellPfns('inflate', pfns(FIRST_PFN, 1024));
      await driver.tellPfns('deflate', pfns(FIRST_PFN, 1024));
    }),
  'slow reader': (path: string) =>
    withLine(path, (line) => {
      for (let n = 0; n < BURST && line.say(GET_FEATURES); n++);
    }),
  'fd flood': (path: string) => {
    const event = createEventFd();
    const fds = Array.from({ length: MOST_FDS }, () => event);
    return withLine(path, (line) => {
      line.say(GET_FEATURES, fds);
      line.listen();
    });
  },
  'partial messages': (path: string) =>
    withLine(path, (line) => {
      const bytes = encodeMessage(REQUEST.SET_FEATURES, VERSION, u64s(0n));
      for (let n = 0; n < bytes.length - 1; n++) line.say(bytes.subarray(n, n + 1));
      line.again();
    }),
} satisfies Record<string, (path: string) => Promise<Act>>;
export type RogueKind = keyof typeof ROGUES;
export const ROGUE_KINDS = Object.keys(ROGUES) as RogueKind[];

const RETRY_MS = 20;

/** One such VM, until it is stopped. */
export class Rogue {
  /** How often it did its thing. */
  steps = 0;
  #running = true;
  readonly #ended: Promise<void>;

  constructor(kind: RogueKind, path: string) {
    this.#ended = this.#run(kind, path);
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#ended;
  }

  /** Too many may wait to be accepted. */
  async #untilAccepted<T>(work: () => Promise<T> | T): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!this.#running || !(error instanceof SystemError) || error.code !== 'EAGAIN') throw error;
        await sleep(RETRY_MS);
      }
    }
  }

  async #run(kind: RogueKind, path: string): Promise<void> {
    const act = await this.#untilAccepted(() => ROGUES[kind](path));
    try {
      while (this.#running) {
        await this.#untilAccepted(act.step);
        this.steps++;
        await turn();
      }
    } finally {
      act.close();
    }
  }
}
