/** A daemon that runs in a root as in a container, and VMMs outside of it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { execIn } from './image.js';
import { ROOT } from './kubernetes.js';

const TIMEOUT_MS = 60_000;

/** A daemon, under its keeper, in a root. */
export class Container {
  readonly #child: ChildProcess;
  readonly #as: readonly string[];
  log = '';

  constructor(child: ChildProcess, as: readonly string[]) {
    this.#child = child;
    this.#as = as;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.log += text));
  }

  /** Of the daemons, in order; the first process of the container is their keeper. */
  get daemons(): number[] {
    return [...this.log.matchAll(/"event":"daemon-started","pid":(\d+)/g)].map(([, pid]) => Number(pid));
  }

  async started(daemons: number): Promise<void> {
    await until(() => this.daemons.length >= daemons || this.#child.exitCode !== null);
    if (this.daemons.length < daemons) throw new Error(`no daemon number ${daemons}: ${this.log}`);
  }

  exec(...command: string[]): string {
    return execIn(this.#child.pid ?? 0, this.#as, command);
  }

  list(): VmView[] {
    return JSON.parse(this.exec('balloonctl', '--json', 'list')) as VmView[];
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.kill();
    await once(this.#child, 'exit');
  }
}

export async function until(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + TIMEOUT_MS; !condition(); await sleep(100)) {
    if (performance.now() > end) throw new Error(`never: ${condition.toString()}`);
  }
}

/** A VMM outside the container, of some user, with the socket at this path of the machine; `folder` is for the test. */
export function startVmm(
  t: Test,
  folder: string,
  socket: string,
  name: string,
  [uid, gid]: [number, number],
  memory = 'shared',
): void {
  const repository = join(folder, 'repository');
  mkdirSync(repository, { recursive: true });
  // Other users may not get at the working tree where it is.
  const script = `mount --bind "$1" "$2"; shift 2; exec setpriv --reuid ${uid} --regid ${gid} --clear-groups "$@"`;
  const vmm = join(repository, 'out/test/support/host-lab/vmm.js');
  const command = [process.execPath, vmm, socket, '-name', `guest=${name}`, memory];
  const child = spawn('unshare', ['--mount', 'sh', '-ec', script, 'sh', ROOT, repository, ...command], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  t.teardown(() => child.kill());
}
