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
const making = new Map<string | null, Promise<Lab>>();

/**
 * Paths of the lab's parts, or of a guest of another architecture, by its row of scripts/foreign-guest. Throws what the script
 * said when they cannot be made: a reason to fail, not to skip.
 */
export function ensureLab(row: string | null = null): Promise<Lab> {
  const made = making.get(row) ?? (row === null ? make() : makeForeign(row));
  making.set(row, made);
  return made;
}

async function makeForeign(row: string): Promise<Lab> {
  const folder = await run('foreign-guest', row);
  const at = (file: string): string => join(folder, file);
  return { qemu: at('qemu'), kernel: at('vmlinuz'), initramfs: at('initramfs.cpio'), cacheModule: null };
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
