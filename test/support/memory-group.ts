/** A memory cgroup, of either version, for processes that together get no more than the memory of a small host. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = '/sys/fs/cgroup';
const IS_V2 = existsSync(join(ROOT, 'cgroup.controllers'));
const [CONTROLLER, LIMIT, ANONYMOUS] = IS_V2
  ? [ROOT, 'memory.max', 'anon']
  : [join(ROOT, 'memory'), 'memory.limit_in_bytes', 'rss'];

export class MemoryGroup {
  readonly #path = join(CONTROLLER, `balloond-test-${process.pid}`);

  constructor() {
    mkdirSync(this.#path);
  }

  /** What `act` starts is in the group; this process is not, afterwards. */
  async around<T>(act: () => Promise<T>): Promise<T> {
    const [, home = ''] = (IS_V2 ? /^0::\/(.*)$/m : /^\d+:memory:\/(.*)$/m).exec(
      readFileSync('/proc/self/cgroup', 'utf8'),
    ) ?? [''];
    writeFileSync(join(this.#path, 'cgroup.procs'), `${process.pid}`);
    try {
      return await act();
    } finally {
      writeFileSync(join(CONTROLLER, home, 'cgroup.procs'), `${process.pid}`);
    }
  }

  /** Throws where the processes have more, and give nothing back. */
  limit(bytes: number): void {
    try {
      writeFileSync(join(this.#path, LIMIT), `${bytes}`);
    } catch (error) {
      throw new Error(`${bytes} bytes are too few for the VMs:\n${this.#stat}`, { cause: error });
    }
  }

  /** The memory that the kernel charges to the processes, in bytes, without the page cache of files that they read. */
  usedBytes(): number {
    const of = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(this.#stat)?.[1]);
    return of(ANONYMOUS) + of('shmem');
  }

  get #stat(): string {
    return readFileSync(join(this.#path, 'memory.stat'), 'latin1');
  }

  /** To be called when its processes have ended. */
  remove(): void {
    rmdirSync(this.#path);
  }
}
