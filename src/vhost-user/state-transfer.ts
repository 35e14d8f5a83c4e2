import { FrontendError, TransferError } from '../memory/errors.js';
import { closeFd, setNonBlocking } from '../os/fd.js';
import { readSome, writeSome } from '../os/pipe.js';
import { Poller, READABLE, WRITABLE } from '../os/poller.js';

/** The state of a device for 1 TiB of guest memory has as much, where no two pages that follow each other are alike. */
const MAX_BYTES = 64 * 2 ** 20;
/** As much at a time, before other VMs get their turn. */
const STEP_BYTES = 256 * 1024;
/** A frontend that takes longer for all of it is not waited for. */
const PATIENCE_MS = 60_000;

export type Direction = 'save' | 'load';

/** What a transfer does for its session. */
interface Transferred {
  /** Takes what came; throws when that cannot be gone on from. */
  load(bytes: Uint8Array): void;
  /** Does the work, which takes time of the event loop. */
  measure(work: () => void): void;
}

/**
 * The state of a device on its way from or to the frontend, through a pipe or a socket of its own ("Migrating back-end state"
 * in vhost-user.rst). The sender's end of the stream is the end of the state. A process that ends meanwhile ends the
 * transfer; the frontend hears of it when it asks (CHECK_DEVICE_STATE).
 */
export class StateTransfer {
  readonly #for: Transferred;
  readonly #patienceMs: number;
  #fd = -1;
  #poller: Poller | null = null;
  #timer: NodeJS.Timeout | null = null;
  /** What came of the last one; null: all went well. */
  #error: Error | null = new FrontendError('no state of the device was transferred');
  #settled: (() => void)[] = [];

  constructor(transferred: Transferred, patienceMs = PATIENCE_MS) {
    this.#for = transferred;
    this.#patienceMs = patienceMs;
  }

  /** Sends `state`. Takes `fd` over; when it throws, that is still the caller's. */
  save(fd: number, state: Uint8Array): void {
    let sent = 0;
    this.#begin(fd, WRITABLE, () => {
      const wrote = writeSome(fd, state.subarray(0, sent + STEP_BYTES), sent);
      sent += Math.max(0, wrote);
      if (sent === state.length) this.#end(null);
    });
  }

  /** Takes in what comes. Takes `fd` over; when it throws, that is still the caller's. */
  load(fd: number): void {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    this.#begin(fd, READABLE, () => {
      const part = new Uint8Array(STEP_BYTES);
      const got = readSome(fd, part);
      if (got < 0) return;
      bytes += got;
      if (bytes > MAX_BYTES) throw new TransferError(`the state is longer than ${MAX_BYTES} bytes`);
      if (got > 0) parts.push(part.slice(0, got));
      else {
        this.#for.load(Buffer.concat(parts));
        this.#end(null);
      }
    });
  }

  /** Whether nothing is on its way; else `settled` is called when that is so. */
  whenSettled(settled: () => void): boolean {
    if (this.#poller === null) return true;
    this.#settled.push(settled);
    return false;
  }

  /** Throws what went wrong with the last transfer. */
  check(): void {
    if (this.#error !== null) throw this.#error;
  }

  /** Gives a transfer that is on its way up. */
  close(): void {
    if (this.#poller !== null) this.#end(new TransferError('the transfer of the state was given up'));
  }

  #begin(fd: number, events: number, step: () => void): void {
    this.close();
    setNonBlocking(fd);
    this.#poller = new Poller(fd, events, (_, error) => {
      this.#for.measure(() => {
        try {
          if (error !== null) throw new TransferError('the frontend closed its end of the state');
          step();
        } catch (thrown) {
          this.#end(new TransferError(thrown instanceof Error ? thrown.message : String(thrown)));
        }
      });
    });
    this.#fd = fd;
    this.#timer = setTimeout(() => {
      this.#end(new TransferError(`the state did not go through within ${this.#patienceMs / 1000} s`));
    }, this.#patienceMs).unref();
  }

  #end(error: Error | null): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#poller?.close();
    this.#poller = null;
    closeFd(this.#fd);
    this.#error = error;
    for (const settled of this.#settled.splice(0)) settled();
  }
}
