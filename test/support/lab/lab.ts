/** The lab: a QEMU with the generic vhost-user device and a Linux guest, made by scripts/lab when missing. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Machine } from './machines.js';

export interface Lab {
  /** Starts QEMU, staying the same process. */
  readonly qemu: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** The page cache balloon's driver for this kernel; null: scripts/guest-module builds it. */
  readonly cacheModule: string | null;
}

const SCRIPTS = join(import.meta.dirname, '../../../../scripts');
const making = new Map<string, Promise<Lab>>();

/**
 * Paths of the lab's parts; `row`: of a guest of another architecture, by its row of scripts/foreign-guest; `suite`: with the
 * kernel of that suite of Debian (scripts/guest-kernel), by default the one that GUEST_KERNEL names. Throws what the script said
 * when they cannot be made: a reason to fail, not to skip.
 */
export function ensureLab({ row = null, suite }: Partial<Pick<Machine, 'row' | 'suite'>> = {}): Promise<Lab> {
  const kernel = row === null ? (suite ?? process.env['GUEST_KERNEL']) : undefined;
  const key = `${row} ${kernel}`;
  const made = making.get(key) ?? (row === null ? make(kernel) : makeForeign(row));
  making.set(key, made);
  return made;
}

async function makeForeign(row: string): Promise<Lab> {
  const folder = await run('foreign-guest', row);
  const at = (file: string): string => join(folder, file);
  return { qemu: at('qemu'), kernel: at('vmlinuz'), initramfs: at('initramfs.cpio'), cacheModule: null };
}

async function make(suite: string | undefined): Promise<Lab> {
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
