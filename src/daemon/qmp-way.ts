/** The way to a QEMU by a QMP socket, which serves one client at a time: behind another one the daemon waits in line. */
import { VmmError, type AdoptedVmm } from '../../protocol/adopted.js';
import { refusal, type NextStep, type RefusalText } from '../../protocol/control/refusal.js';
import { isStopped } from '../host/process-id.js';
import { SystemError } from '../os/errors.js';
import { standingAt } from '../os/socket.js';
import { connectQmp, type QmpClient } from '../qmp/client.js';
import { findBalloon } from '../qmp/qemu.js';
import type { Obstacle, Way } from './adoption.js';

/** QEMU greets at once, unless it serves another client. */
const GREETING_MS = 3000;
/** A VM that is not started yet, or has just ended. */
const ABSENT: readonly string[] = ['ENOENT', 'ECONNREFUSED'];

/** The next step of an operator who named another path. */
export const QMP_PATH_STEP: NextStep =
  'give the path of a QMP socket of QEMU (-qmp unix:PATH,server=on,wait=off)';

export class QmpWay implements Way {
  readonly kind = 'qmp';
  readonly path: string;
  #client: QmpClient | null = null;

  constructor(path: string) {
    this.path = path;
  }

  get words(): string {
    return `the VM at ${this.path}`;
  }

  get socketPath(): string {
    return this.path;
  }

  async reach(waits: (says: RefusalText) => void): Promise<AdoptedVmm> {
    const client = connectQmp(this.path);
    this.#client = client;
    const late = setTimeout(() => waits(this.#why(client)), GREETING_MS).unref();
    try {
      await client.greeted();
    } finally {
      clearTimeout(late);
    }
    return await findBalloon(client);
  }

  giveUp(): void {
    this.#client?.close();
  }

  obstacle(error: unknown): Obstacle {
    const isAbsent = error instanceof SystemError && ABSENT.includes(error.code);
    const [why, step] = whyNot(error, this.path);
    return { why, step, isAbsent };
  }

  #why({ version, pid }: QmpClient): RefusalText {
    if (isStopped(pid))
      return refusal(
        `the process that serves ${this.path} (pid ${pid}) is stopped by a signal or a debugger, and the daemon waits`,
        `let it go on (kill -CONT ${pid}, or leave the debugger)`,
      );
    if (version !== '')
      return refusal(
        `QEMU greets at ${this.path} and takes no command`,
        `look whether the process ${pid} hangs or is stopped (kill -CONT ${pid})`,
      );
    return refusal(
      `no QEMU greets at ${this.path}, which serves one client at a time, and the daemon waits in line`,
      'end the other client, or give QEMU a QMP socket for the daemon alone',
    );
  }
}

/** Why QEMU's balloon is not to be had, and the next step. Throws what is no such reason. */
function whyNot(error: unknown, path: string): [why: string, step: NextStep] {
  if (error instanceof VmmError) {
    return error.errorClass === 'DeviceNotActive'
      ? [error.message, 'add -device virtio-balloon-pci to QEMU, or plug one in (device_add)']
      : [error.message, QMP_PATH_STEP];
  }
  if (!(error instanceof SystemError)) throw error;
  const { code } = error;
  if (code === 'ENOENT') return ['nothing is there', 'start QEMU with -qmp unix:PATH,server=on,wait=off'];
  if (code === 'ECONNREFUSED' && standingAt(path) !== 'socket') return ['no socket is there', QMP_PATH_STEP];
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
