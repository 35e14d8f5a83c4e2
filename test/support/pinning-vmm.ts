// A process that opens and closes what VMMs open for devices that reach guest memory by themselves. The file is a plain
// one, in a mount namespace of its own where it may have that name, and a /proc of its own says that VFIO is there.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import type { Test } from 'tap';
import { HostTree } from './host-tree.js';

export const PINNING_FILE = '/dev/vfio/12';

const PROGRAM = `mount -t tmpfs ram /dev && mkdir /dev/vfio && : >${PINNING_FILE} || exit 9
echo ready
while read -r order; do eval "$order"; echo done; done`;

export class PinningVmm {
  /** Processes of this machine, on a kernel that has VFIO. */
  readonly tree: HostTree;

  private constructor(
    private readonly child: ChildProcessWithoutNullStreams,
    t: Test,
  ) {
    this.tree = new HostTree(t);
    this.tree.write('proc/misc', '232 kvm\n196 vfio\n');
    this.tree.write('proc/devices', 'Character devices:\n 10 misc\n');
    for (const pid of [this.pid, process.pid]) this.tree.link(`proc/${pid}`, `/proc/${pid}`);
  }

  /** Null, and the test is told, where no mount namespace can be made. Ends with the test. */
  static async start(t: Test): Promise<PinningVmm | null> {
    const child = spawn('unshare', ['-m', 'sh', '-c', PROGRAM]);
    const answered = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
    if (String(answered[0]) !== 'ready\n') {
      t.pass('pinned memory', { skip: 'no mount namespace can be made here' });
      return null;
    }
    t.teardown(() => child.kill('SIGKILL'));
    return new PinningVmm(child, t);
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
