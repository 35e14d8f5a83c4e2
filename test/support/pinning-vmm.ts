// A process that opens and closes what VMMs open for devices that reach guest memory by themselves. The file is a plain
// one, in a mount namespace of its own where it may have that name.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import type { Test } from 'tap';

export const PINNING_FILE = '/dev/vfio/12';

const PROGRAM = `mount -t tmpfs ram /dev && mkdir /dev/vfio && : >${PINNING_FILE} || exit 9
echo ready
while read -r order; do eval "$order"; echo done; done`;

export class PinningVmm {
  private constructor(private readonly child: ChildProcessWithoutNullStreams) {}

  /** Null, and the test is told, where no mount namespace can be made. Ends with the test. */
  static async start(t: Test): Promise<PinningVmm | null> {
    const child = spawn('unshare', ['-m', 'sh', '-c', PROGRAM]);
    const answered = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
    if (String(answered[0]) !== 'ready\n') {
      t.pass('pinned memory', { skip: 'no mount namespace can be made here' });
      return null;
    }
    t.teardown(() => child.kill('SIGKILL'));
    return new PinningVmm(child);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Where any process may open the file by its name, as long as this one lives. */
  get path(): string {
    return `/proc/${this.pid}/root${PINNING_FILE}`;
  }

  pin(): Promise<void> {
    return this.#order(`exec 9<${PINNING_FILE}`);
  }

  unpin(): Promise<void> {
    return this.#order('exec 9<&-');
  }

  async #order(line: string): Promise<void> {
    const done = once(this.child.stdout, 'data');
    this.child.stdin.write(`${line}\n`);
    await done;
  }
}
