/**
 * Debian's libvirtd and libvirt-dbus in a root, with mounts, processes and network of its own; what is done to it is thrown away, and it
 * ends with this process. Needs root. `/run/balloond` is a folder of this machine, `/opt/lab` the lab's.
 *
 * It is entered by pivot_root: libvirt goes into its domains' mount namespaces, where a chroot is left behind. It has no
 * /dev/kvm: one that does not work has libvirt look at all emulators anew for each command.
 */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PC_ARGS } from './lab/machines.js';

const DEBIAN_ROOT = join(import.meta.dirname, '../../../scripts/debian-root');
/** QEMU comes along; theirs is that of Debian 13, or with LIBVIRT=backports that of its backports. */
const PACKAGES = ['libvirt-daemon', 'libvirt-daemon-driver-qemu', 'libvirt-clients', 'libvirt-dbus'];
export const IS_BACKPORTS = process.env['LIBVIRT'] === 'backports';
const START_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 120_000;
/** The last process waits for whatever the others leave behind. The bus starts libvirt-dbus, which polkit lets in. */
const START = `work=$1
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$2,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
cd "$work/root"
mkdir -p run/balloond opt/lab old
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --bind dev dev
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mkdir -p dev/hugepages
mount -t hugetlbfs hugetlbfs dev/hugepages
mount --bind "$3" run/balloond
mount --bind "$4" opt/lab
mount -o remount,bind,ro opt/lab
pivot_root . old
umount -l old
exec env -i PATH=/usr/sbin:/usr/bin HOME=/root sh -c 'mkdir -p /run/dbus; dbus-uuidgen --ensure; dbus-daemon --system --fork; /usr/lib/polkit-1/polkitd --no-debug & virtlogd --daemon; libvirtd & while :; do wait; sleep 1; done'`;

/** For `init` of a domain. */
export const LOAD_DRIVER = 'mount -t devtmpfs dev /dev; insmod /virtio_balloon.ko';
export const REST = 'exec sleep 1000000';

/** For `init` of a domain: it touches so much memory, and has it free again. */
export function touch(mib: number): string {
  return `mount -t ramfs ramfs /tmp; dd if=/dev/zero of=/tmp/full bs=1M count=${mib}; rm /tmp/full`;
}

/** A domain with the kernel of the lab at /opt/lab, which runs the words of `init`; `balloon` is the element of its balloon. */
export function domainXml(name: string, init: string, { memoryMib = 512, balloon = '' } = {}): string {
  return `<domain type='qemu'><name>${name}</name><memory unit='MiB'>${memoryMib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>/opt/lab/vmlinux</kernel><initrd>/opt/lab/initramfs.cpio</initrd>
<cmdline>${PC_ARGS.join(' ')} quiet rdinit=/bin/sh -- -c "${init}"</cmdline></os>
<features><acpi/></features><devices>${balloon}</devices></domain>`;
}

export interface Said {
  code: number;
  /** stdout and stderr. */
  text: string;
}

export class LibvirtHost {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #shared: string;
  #said = '';

  private constructor(child: ChildProcess, folder: string, shared: string) {
    this.#child = child;
    this.#folder = folder;
    this.#shared = shared;
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => (this.#said += text));
  }

  /** Resolves when libvirtd answers. */
  static async start(balloondFolder: string, labFolder: string): Promise<LibvirtHost> {
    const root = execFileSync('sh', [DEBIAN_ROOT, ...(IS_BACKPORTS ? ['--backports'] : []), ...PACKAGES], {
      encoding: 'utf8',
    }).trim();
    const folder = mkdtempSync(join(tmpdir(), 'balloond-libvirt-'));
    const namespaces = ['--mount', '--pid', '--net', '--ipc', '--uts', '--fork', '--kill-child'];
    const start = ['sh', '-ec', START, 'sh', folder, root, balloondFolder, labFolder];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...namespaces, ...start], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const host = new LibvirtHost(child, folder, balloondFolder);
    for (const end = performance.now() + START_TIMEOUT_MS; ; await sleep(200)) {
      if (child.exitCode === null && host.#first !== null && (await host.sh('virsh version')).code === 0) {
        return host;
      }
      if (child.exitCode === null && performance.now() < end) continue;
      await host.close();
      throw new Error(`libvirtd does not start: ${host.#said}`);
    }
  }

  /** In the host, as root. */
  sh(command: string): Promise<Said> {
    const enter = ['--target', String(this.#first), '--mount', '--pid', '--net', '--ipc', '--uts'];
    const env = ['env', '-i', 'PATH=/usr/sbin:/usr/bin', 'HOME=/root'];
    const args = [...enter, ...env, 'sh', '-c', `exec 2>&1; ${command}`];
    return new Promise((resolve) => {
      execFile('nsenter', args, { timeout: COMMAND_TIMEOUT_MS }, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? 128), text: stdout + stderr });
      });
    });
  }

  /** As `sh`; throws what was said when it fails. */
  async ok(command: string): Promise<string> {
    const { code, text } = await this.sh(command);
    if (code === 0) return text;
    const log = await this.sh('tail -n 20 /var/log/libvirt/qemu/*.log');
    throw new Error(`${command} ended with ${code}: ${text}\n${log.text}\n${this.#said}`);
  }

  /** `init` and `balloon` as for `domainXml`. */
  async define(name: string, init: string, balloon = ''): Promise<void> {
    const xml = domainXml(name, init, { balloon });
    writeFileSync(join(this.#shared, 'domain.xml'), xml);
    await this.ok('virsh define /run/balloond/domain.xml');
  }

  /** One figure of virsh dommemstat, in bytes: `actual` is QEMU's word, `available` the guest's. */
  async memstat(name: string, figure: string): Promise<number> {
    const text = await this.ok(`virsh dommemstat ${name}`);
    return Number(new RegExp(`^${figure} (\\d+)$`, 'm').exec(text)?.[1]) * 1024;
  }

  /** The socket of its message bus, as this machine sees it. */
  get bus(): string {
    return `/proc/${this.#first}/root/run/dbus/system_bus_socket`;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGKILL');
      await once(this.#child, 'exit');
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** The process that is number 1 inside; null: not yet there. */
  get #first(): number | null {
    const { pid } = this.#child;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim();
    return children === '' ? null : Number(children);
  }
}
