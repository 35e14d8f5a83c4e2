/**
 * A Debian 13 as its installer leaves it, with systemd as its first process, in namespaces of its own on this machine: what
 * is done to it is in memory (some 3 GB), and it ends with this process. It has the network of this machine, no KVM, and a checkout of
 * the working tree where `git clone` would put it. Its cgroups have no memory controller where this machine's cgroup v1
 * holds that. Needs root.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { npmEnvironment } from '../support/image.js';
import { ensureLab } from '../support/lab/lab.js';
import { ROOT } from './page.js';

/** Beyond Debian's own minimum: what its installer adds for a server, as far as pages use it. */
const PACKAGES = ['systemd-sysv', 'dbus', 'passwd', 'sudo', 'curl', 'ca-certificates'];
const START_TIMEOUT_MS = 120_000;
export const CHECKOUT = '/root/balloond';
const GUEST = '/opt/guest';
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** A cgroup of its own first, so that its systemd has no other's. Settings of the kernel are out of its reach. */
const START = `base=$1 stage=$2 name=$3
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/cgroup /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$base,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
rm -rf /mnt/root/var/lib/apt/lists /mnt/root/var/cache/apt
cp -a "$stage/." /mnt/root/
mount -t cgroup2 cgroup2 /mnt/cgroup
mkdir "/mnt/cgroup/$name"
echo 0 >"/mnt/cgroup/$name/cgroup.procs"
exec unshare --cgroup sh -ec '
  cd /mnt/root
  mkdir old
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs dev
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  mknod -m 666 dev/null c 1 3; mknod -m 666 dev/zero c 1 5; mknod -m 666 dev/full c 1 7
  mknod -m 666 dev/random c 1 8; mknod -m 666 dev/urandom c 1 9; mknod -m 666 dev/tty c 5 0
  ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
  ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
  mount -t tmpfs -o mode=755 tmpfs run
  pivot_root . old
  umount -l old
  exec env -i PATH=/usr/sbin:/usr/bin container=docs /usr/lib/systemd/systemd --show-status=no
'`;

export interface Said {
  /** 128 + signal when one ended it; 124 when its time was up. */
  readonly code: number;
  /** stdout and stderr. */
  readonly text: string;
}

export interface Ask {
  readonly cwd: string;
  readonly timeoutSeconds: number;
}

interface HostOptions {
  readonly base?: string;
  readonly layOut?: (stage: string) => Promise<void>;
}

export class DebianHost {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #cgroup: string;
  readonly #environment: readonly string[];
  #asked = 0;

  private constructor(child: ChildProcess, folder: string, cgroup: string, environment: readonly string[]) {
    this.#child = child;
    this.#folder = folder;
    this.#cgroup = cgroup;
    this.#environment = environment;
  }

  /**
   * Resolves when its systemd answers. `base` is the folder of another Debian; `layOut` puts below a folder what is to be in the
   * host besides.
   */
  static async start({ base = debian13(), layOut }: HostOptions = {}): Promise<DebianHost> {
    const lab = await ensureLab();
    const folder = mkdtempSync(join(tmpdir(), 'balloond-docs-'));
    const stage = join(folder, 'stage');
    clone(join(stage, CHECKOUT));
    mkdirSync(join(stage, GUEST), { recursive: true });
    mkdirSync(join(stage, 'etc'));
    writeFileSync(join(stage, 'etc/hostname'), 'host\n');
    writeFileSync(join(stage, 'etc/hosts'), '127.0.0.1 localhost\n127.0.1.1 host\n');
    cpSync('/etc/resolv.conf', join(stage, 'etc/resolv.conf'), { dereference: true });
    cpSync(lab.kernel, join(stage, GUEST, 'vmlinux'));
    cpSync(lab.initramfs, join(stage, GUEST, 'initramfs.cpio'));
    await layOut?.(stage);
    const { env, authorities } = npmEnvironment('/etc/npm-authorities');
    if (authorities !== '') cpSync(authorities, join(stage, 'etc/npm-authorities'));

    const cgroup = `balloond-docs-${process.pid}`;
    const namespaces = ['--mount', '--pid', '--ipc', '--uts', '--fork', '--kill-child'];
    const start = ['sh', '-ec', START, 'sh', base, stage, cgroup];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...namespaces, ...start], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const host = new DebianHost(child, folder, cgroup, env);
    try {
      await host.#started();
      return host;
    } catch (error) {
      await host.close();
      throw error;
    }
  }

  /** Types a command as root would, in a shell of its own; what it leaves running goes on. */
  async sh(command: string, { cwd, timeoutSeconds }: Ask): Promise<Said> {
    const said = join(this.#folder, `said-${this.#asked++}`);
    const output = openSync(said, 'w');
    const environment = [`PATH=${PATH}`, 'HOME=/root', 'LANG=C.UTF-8', 'DEBIAN_FRONTEND=noninteractive'];
    const child = spawn(
      'nsenter',
      [
        ...['--target', String(this.#first), '--mount', '--pid', '--ipc', '--uts', '--cgroup'],
        ...['env', '-i', ...environment, ...this.#environment],
        ...['systemd-run', '--quiet', '--scope', '--collect'],
        ...['timeout', '--foreground', '--signal=INT', `--kill-after=10`, String(timeoutSeconds)],
        ...['bash', '-c', `cd ${cwd}\n${command}`],
      ],
      { stdio: ['ignore', output, output] },
    );
    closeSync(output);
    const [code] = (await once(child, 'exit')) as [number | null];
    return { code: code ?? 128, text: readFileSync(said, 'utf8') };
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGKILL');
      await once(this.#child, 'exit');
    }
    // Empty once its processes are gone; the kernel takes a moment.
    const script = `mount -t cgroup2 cgroup2 /mnt && cd /mnt && find "$1" -depth -type d -exec rmdir {} +`;
    for (let tries = 0; tries < 50; tries++) {
      try {
        execFileSync('unshare', ['--mount', 'sh', '-ec', script, 'sh', this.#cgroup], { stdio: 'ignore' });
        break;
      } catch {
        await sleep(100);
      }
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #started(): Promise<void> {
    const states = /^(running|degraded)$/m;
    for (const end = performance.now() + START_TIMEOUT_MS; ; await sleep(200)) {
      if (this.#child.exitCode !== null) throw new Error('systemd does not start');
      if (this.#first !== null && existsInside(this.#first)) {
        const { text } = await this.sh('systemctl is-system-running --wait', {
          cwd: '/',
          timeoutSeconds: 60,
        });
        if (states.test(text)) return;
      }
      if (performance.now() > end) throw new Error('systemd is not up in time');
    }
  }

  /** The process that is number 1 inside; null: not yet there. */
  get #first(): number | null {
    const { pid } = this.#child;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim();
    return children === '' ? null : Number(children);
  }
}

function existsInside(pid: number): boolean {
  return readFileSync(`/proc/${pid}/comm`, 'latin1').trim() === 'systemd';
}

function debian13(): string {
  return execFileSync('sh', [join(ROOT, 'scripts/debian-root'), ...PACKAGES], { encoding: 'utf8' }).trim();
}

/** Files of the working tree that git knows, or would. */
function clone(to: string): void {
  mkdirSync(to, { recursive: true });
  execFileSync('sh', [
    '-ec',
    `cd "$1" && git ls-files -z --cached --others --exclude-standard --deduplicate |
      tar --null --ignore-failed-read -T - -cf - | tar -C "$2" --no-same-owner -xf -`,
    ...['sh', ROOT, to],
  ]);
}

/** The rest of a QEMU command line that a page cuts short by `...`: the lab's small Linux, in the background. */
export const REST_OF_QEMU =
  `-display none -daemonize -accel tcg -cpu max,la57=off ` +
  `-kernel ${GUEST}/vmlinux -initrd ${GUEST}/initramfs.cpio -append 'quiet no_timer_check console=ttyS0'`;
