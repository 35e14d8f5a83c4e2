/**
 * A Debian 13 that nobody prepared for balloond's driver: systemd, a kernel, and its initramfs. Packages are installed in a chroot, on
 * this machine's own processors and with its network; then the tree boots in QEMU, with its own kernel and initramfs. In the chroot
 * `uname -r` names the tree's kernel in place of this machine's, and nothing else is told to it. Needs root.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { runLine } from './image.js';
import { Guest, type GuestOptions } from './lab/guest.js';
import { ROOT } from './kubernetes.js';

const PACKAGES = ['systemd-sysv', 'initramfs-tools', 'kmod', 'procps', 'linux-image-cloud-amd64'];
const AGENT = 'usr/lib/test-agent';
const UNIT = 'etc/systemd/system/test-agent.service';
const UNAME = 'usr/local/bin/uname';
/** An image is so much larger than its files: room for what the file system keeps and a test writes. */
const IMAGE_SHARE = 1.25;
const START_TIMEOUT_MS = 600_000;

const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();

/** The folder of a Debian with a kernel, which is made once. */
function debian(): string {
  return run('sh', join(ROOT, 'scripts/debian-root'), ...PACKAGES);
}

export class DebianGuest {
  readonly path: string;
  readonly #lower: string;
  readonly #upper: string;

  /** `folder` is one in memory, for what is done to the tree; `from`: begins where another one is at this moment, which changes no more. */
  constructor(t: Test, folder: string, from?: DebianGuest) {
    const layer = mkdtempSync(join(folder, 'guest-'));
    chmodSync(layer, 0o755);
    this.path = join(layer, 'root');
    this.#upper = join(layer, 'upper');
    for (const each of [this.path, this.#upper, join(layer, 'work')]) mkdirSync(each);
    this.#lower = from === undefined ? debian() : `${from.#upper}:${from.#lower}`;
    const options = `lowerdir=${this.#lower},upperdir=${this.#upper},workdir=${join(layer, 'work')}`;
    run('mount', '-t', 'overlay', '-o', options, 'overlay', this.path);
    t.teardown(() => {
      run('umount', '--lazy', this.path);
      rmSync(layer, { recursive: true, force: true });
    });
    if (from === undefined) this.#prepare();
  }

  /** Its kernels, the oldest first. */
  get kernels(): string[] {
    return readdirSync(join(this.path, 'boot'))
      .flatMap((name) => /^vmlinuz-(.*)/.exec(name)?.[1] ?? [])
      .sort((one, other) => one.localeCompare(other, 'en', { numeric: true }));
  }

  /** Types commands as root would, where the first kernel runs; their output, or throws. */
  sh(commands: string): string {
    return runLine(`exec 2>&1; ${commands}`, this.path, '/root').trim();
  }

  /** Boots what is there now, with one of its kernels. */
  async boot(
    t: Test,
    kernel: string,
    options: Partial<GuestOptions> & Pick<GuestOptions, 'name'>,
  ): Promise<Guest> {
    const image = `${this.path}.ext4`;
    rmSync(join(this.path, UNAME), { force: true });
    const filesMib = Number(run('du', '-sm', this.path).split('\t')[0]);
    run(
      'mke2fs',
      '-q',
      '-t',
      'ext4',
      '-m',
      '0',
      '-d',
      this.path,
      image,
      `${Math.ceil(IMAGE_SHARE * filesMib)}M`,
    );
    this.#tellKernel();
    t.teardown(() => rmSync(image));
    const guest = await Guest.boot({
      ...{ memoryMib: 1024, cpus: 2, rootImage: image, kernel: join(this.path, `boot/vmlinuz-${kernel}`) },
      ...options,
      extraArgs: ['-initrd', join(this.path, `boot/initrd.img-${kernel}`)],
    });
    t.teardown(() => guest.kill());
    await guest.waitReady(START_TIMEOUT_MS);
    return guest;
  }

  #tellKernel(): void {
    const [kernel = ''] = this.kernels;
    writeFileSync(
      join(this.path, UNAME),
      `#!/bin/sh\n[ "$*" = -r ] || exec /usr/bin/uname "$@"\necho ${kernel}\n`,
      {
        mode: 0o755,
      },
    );
  }

  #prepare(): void {
    run(
      'gcc',
      '-O2',
      '-s',
      '-static',
      '-o',
      join(this.path, AGENT),
      join(ROOT, 'test/support/lab/guest/agent.c'),
    );
    writeFileSync(
      join(this.path, UNIT),
      `[Service]\nExecStart=/${AGENT}\n[Install]\nWantedBy=multi-user.target\n`,
    );
    this.#tellKernel();
    this.sh('systemctl enable test-agent.service && echo web-1 >/etc/hostname');
  }

  /** Copies a file or folder of this machine into root's home. */
  copy(path: string, name: string): void {
    cpSync(path, join(this.path, 'root', name), { recursive: true });
  }
}
