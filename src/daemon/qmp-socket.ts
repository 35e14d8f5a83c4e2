/**
 * One QMP socket whose VM is adopted: connected to, and after the VM or the connection ended connected to again, less and less
 * often while that fails. A QMP socket serves one client at a time; behind another one the daemon waits in line.
 */
import { QmpError } from '../../protocol/qmp/error.js';
import { refusal, type NextStep, type RefusalText } from '../../protocol/control/refusal.js';
import { RefusedError } from '../control/fleet.js';
import type { Emit } from '../ops/event-log.js';
import { SystemError } from '../os/errors.js';
import { connectQmp, type QmpClient } from '../qmp/client.js';
import { findBalloon, type QemuBalloon, type QemuLook } from '../qmp/qemu.js';
import type { QmpDevice } from '../vm/qmp-device.js';

/** QEMU greets at once, unless it serves another client. */
const GREETING_MS = 3000;
const FIRST_MS = 1000;
const MOST_MS = 60_000;
/** A VM that is not started yet, or has just ended. */
const ABSENT: readonly string[] = ['ENOENT', 'ECONNREFUSED'];

export interface Adoptable {
  readonly path: string;
  readonly qemu: QemuBalloon;
  readonly seen: QemuLook;
  readonly deflatesOnOom: boolean;
  /** To be called once, when the device is closed. */
  readonly closed: () => void;
}

interface QmpSocketOptions {
  readonly emit: Emit;
  /** Makes the device; throws RefusedError. */
  readonly make: (adoptable: Adoptable) => QmpDevice;
}

export class QmpSocket {
  readonly path: string;
  readonly #options: QmpSocketOptions;
  #device: QmpDevice | null = null;
  #client: QmpClient | null = null;
  #problem: RefusalText | null = null;
  /** The daemon waits behind another client. */
  #inLine = false;
  #timer: NodeJS.Timeout | null = null;
  #waitMs = FIRST_MS;
  #ended = false;

  constructor(path: string, options: QmpSocketOptions) {
    this.path = path;
    this.#options = options;
  }

  /** The device that came of it; null: none yet. */
  get device(): QmpDevice | null {
    return this.#device;
  }

  /** Why there is no device, and what to do; null: there is one, or nothing is known yet. */
  get problem(): RefusalText | null {
    return this.#problem;
  }

  get inLine(): boolean {
    return this.#inLine;
  }

  /** Tries until end(). Resolves when the first attempt failed, made a device or waits in line. */
  async start(): Promise<void> {
    await new Promise<void>((resolve) => void this.#attempt(resolve));
  }

  /** Lets go of the VM. */
  async end(): Promise<void> {
    this.#ended = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#device === null) this.#client?.close();
    else await this.#device.leave();
  }

  async #attempt(settled: () => void = () => undefined): Promise<void> {
    try {
      const client = connectQmp(this.path);
      this.#client = client;
      const late = setTimeout(() => {
        this.#waitInLine();
        settled();
      }, GREETING_MS).unref();
      try {
        await client.greeted();
      } finally {
        clearTimeout(late);
        this.#inLine = false;
      }
      const qemu = await findBalloon(client);
      const deflatesOnOom = await qemu.deflatesOnOom();
      const seen = await qemu.look();
      if (this.#ended) return;
      const closed = (): void => this.#closed();
      this.#device = this.#options.make({ path: this.path, qemu, seen, deflatesOnOom, closed });
      this.#problem = null;
      this.#waitMs = FIRST_MS;
    } catch (error) {
      this.#client?.close();
      this.#fail(error);
    } finally {
      settled();
    }
  }

  #closed(): void {
    this.#device = null;
    this.#again();
  }

  #waitInLine(): void {
    this.#inLine = true;
    this.#say(
      'qmp-waiting',
      refusal(
        `no QEMU greets at ${this.path}, which serves one client at a time, and the daemon waits in line`,
        'end the other client, or give QEMU a QMP socket for the daemon alone',
      ),
    );
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    const says = this.#words(error);
    if (error instanceof SystemError && ABSENT.includes(error.code)) this.#problem = says;
    else this.#say('adopt-failed', says);
    this.#again();
  }

  #words(error: unknown): RefusalText {
    if (error instanceof RefusedError) return error.message;
    const [why, step] = whyNot(error, this.path);
    return refusal(`the VM at ${this.path} cannot be adopted, since ${why}`, step);
  }

  /** Once for each reason. */
  #say(event: 'qmp-waiting' | 'adopt-failed', says: RefusalText): void {
    if (says !== this.#problem) this.#options.emit(event, says, { socket: this.path });
    this.#problem = says;
  }

  #again(): void {
    if (this.#ended) return;
    this.#timer = setTimeout(() => void this.#attempt(), this.#waitMs).unref();
    this.#waitMs = Math.min(2 * this.#waitMs, MOST_MS);
  }
}

/** Why QEMU's balloon is not to be had, and the next step. Throws what is no such reason. */
function whyNot(error: unknown, path: string): [why: string, step: NextStep] {
  if (error instanceof QmpError) {
    return error.errorClass === 'DeviceNotActive'
      ? [error.message, 'add -device virtio-balloon-pci to QEMU, or plug one in (device_add)']
      : [error.message, 'give the path of a QMP socket of QEMU (-qmp unix:PATH,server=on,wait=off)'];
  }
  if (!(error instanceof SystemError)) throw error;
  const { code } = error;
  if (code === 'ENOENT') return ['nothing is there', 'start QEMU with -qmp unix:PATH,server=on,wait=off'];
  if (code === 'ECONNREFUSED') return ['no process listens there', 'start the VM'];
  if (code === 'EAGAIN') return ['several clients wait there already', 'end the clients that are not needed'];
  if (code === 'EACCES') {
    return [
      'the daemon may not connect to it',
      `let the user of the daemon write to it, with \`setfacl -m u:balloond:rw ${path}\``,
    ];
  }
  return [`it cannot be connected to (${code})`, 'give the path of a QMP socket of QEMU'];
}
