/** The lab: a QEMU with the generic vhost-user device and a Linux guest, made by scripts/lab when missing. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface Lab {
  /** Starts QEMU, staying the same process. */
  readonly qemu: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** The page cache balloon's driver for this kernel; null: scripts/guest-module builds it. */
  readonly cacheModule: string | null;
}

const SCRIPTS = join(import.meta.dirname, '../../../../scripts');
let making: Promise<Lab> | null = null;

/** Paths of the lab's parts. Throws what scripts/lab said when it cannot be made: a reason to fail, not to skip. */
export function ensureLab(): Promise<Lab> {
  return (making ??= make());
}

/** GUEST_KERNEL=bookworm or trixie-backports: with that suite's kernel. */
async function make(): Promise<Lab> {
  const suite = process.env['GUEST_KERNEL'];
  const folder = await run('lab');
  const qemu = join(folder, 'qemu');
  if (suite === undefined) {
    const [kernel, initramfs] = [join(folder, 'vmlinux'), join(folder, 'initramfs.cpio')];
    return { qemu, kernel, initramfs, cacheModule: null };
  }
  const guest = await run('guest-kernel', suite);
  const [kernel, initramfs] = [join(guest, 'vmlinuz'), join(guest, 'initramfs.cpio')];
  return { qemu, kernel, initramfs, cacheModule: join(guest, 'cache.ko') };
}

async function run(script: string, ...args: string[]): Promise<string> {
  return (await promisify(execFile)('sh', [join(SCRIPTS, script), ...args])).stdout.trim();
}
