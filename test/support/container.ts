/** A daemon that runs in a root as in a container, and VMMs outside of it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { eventually } from './deadline.js';
import { execIn } from './image.js';
import { ROOT } from './kubernetes.js';

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
    const failure = (): string => `daemon number ${daemons} of the container starts: ${this.log}`;
    await eventually(() => this.daemons.length >= daemons || this.#child.exitCode !== null, failure);
    if (this.daemons.length < daemons) throw new Error(`never: ${failure()}`);
  }

  exec(...command: string[]): string {
    return execIn(this.#child.pid ?? 0, this.#as, command);
  }

  list(): VmView[] {
    return JSON.parse(this.exec('balloonctl', '--json', 'list')) as VmView[];
  }

  /** Waits for a VM of the container's list. */
  async vm(condition: (vm: VmView) => boolean, what: string): Promise<void> {
    await eventually(
      () => this.list().some(condition),
      () => `${what}: ${this.log}`,
      100,
    );
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.kill();
    await once(this.#child, 'exit');
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
