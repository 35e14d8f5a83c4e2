// The part of a daemon that serves VMs, in a process of its own under a keeper, on a host whose kernel's files are a folder:
// `small-daemon.js FOLDER`, with the trees of test/support/host-tree.ts in FOLDER and its sockets beside them.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { passedFds } from '../../protocol/systemd.js';
import { ControlClient } from '../../src/control/client.js';
import type { DaemonSaid } from '../../src/control/cli/daemon-notes.js';
import { startControlServer } from '../../src/control/server.js';
import { VmFleet } from '../../src/daemon/fleet.js';
import { findHolder } from '../../src/daemon/holder.js';
import { OrderFiles } from '../../src/daemon/order-files.js';
import { VmmSockets } from '../../src/daemon/vmm-sockets.js';
import { EventLog } from '../../src/ops/event-log.js';
import { FdStore } from '../../src/ops/fd-store.js';
import { Keeper } from '../../src/ops/keeper.js';
import { notify } from '../../src/ops/notify.js';
import { startWatchdog } from '../../src/ops/watchdog.js';
import { eventually } from './deadline.js';
import { daemonView, MemoryDaemon } from './fleet.js';

const SELF = fileURLToPath(import.meta.url);

function ignore(): void {
  return;
}

async function serve(folder: string): Promise<void> {
  const { socket, most } = findHolder(process.env, () => null);
  const store = new FdStore(socket, most, passedFds(process.env, process.pid), (reason) => {
    throw new Error(reason);
  });
  const events = new EventLog({ debug: ignore, info: ignore, warn: ignore, error: ignore });
  const paths = {
    proc: join(folder, 'proc'),
    cgroup: join(folder, 'cgroup'),
    hugePages: join(folder, 'hugepages'),
    limitsHelper: join(folder, 'limits.sock'),
    libvirt: join(folder, 'libvirt'),
  };
  const orders = new OrderFiles(store, null);
  const fleet = new VmFleet({}, events, store, { paths, orders, pinCheckMs: 20 });
  for (const name of store.left('state')) {
    const fd = store.claim(name);
    if (fd !== null) fleet.resume(fd);
  }
  const sockets = new VmmSockets(
    [
      { path: join(folder, 'balloon.sock'), name: 'web' },
      { path: join(folder, 'cache-balloon.sock'), name: 'web', device: 'cache-balloon' },
    ],
    store,
    (fd, settings) => fleet.adopt(fd, settings),
    events.emit,
  );
  sockets.listen();
  const daemon = new MemoryDaemon();
  daemon.state = daemonView({ pid: process.pid });
  await startControlServer(join(folder, 'control.sock'), fleet.control, events, '0', daemon, ignore);
  notify({ READY: 1 });
  startWatchdog((withinMs) => fleet.discardsMove(withinMs));
}

export class SmallDaemon {
  readonly control: ControlClient;
  readonly #keeper: Keeper;
  readonly #ended: Promise<number>;

  private constructor(folder: string) {
    this.control = new ControlClient(join(folder, 'control.sock'));
    this.#keeper = new Keeper([process.execPath, SELF, folder], SELF, ignore);
    this.#ended = this.#keeper.run();
  }

  static async start(folder: string): Promise<SmallDaemon> {
    const daemon = new SmallDaemon(folder);
    await daemon.#answers(0);
    return daemon;
  }

  /** Resolves when the next one serves. */
  async kill(): Promise<void> {
    const { pid = 0 }: DaemonSaid = await this.control.daemon();
    process.kill(pid, 'SIGKILL');
    await this.#answers(pid);
  }

  async stop(): Promise<void> {
    this.#keeper.stop('SIGKILL');
    await this.#ended;
  }

  /** Another one than that process. */
  async #answers(than: number): Promise<void> {
    const pid = (): Promise<number> =>
      this.control.daemon().then(
        (view: DaemonSaid) => view.pid ?? than,
        () => than,
      );
    await eventually(
      async () => (await pid()) !== than,
      () => 'the daemon answers',
    );
  }
}

if (process.argv[1] === SELF) await serve(process.argv[2] ?? '');
