/** The lab: a QEMU with the generic vhost-user device and a Linux guest, made by scripts/lab when missing. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface Lab {
  /** Starts QEMU, staying the same process. */
  readonly qemu: string;
  readonly kernel: string;
  readonly initramfs: string;
}

const SCRIPT = join(import.meta.dirname, '../../../../scripts/lab');
let making: Promise<Lab> | null = null;

/** Paths of the lab's parts. Throws what scripts/lab said when it cannot be made: a reason to fail, not to skip. */
export function ensureLab(): Promise<Lab> {
  return (making ??= make());
}

async function make(): Promise<Lab> {
  const { stdout } = await promisify(execFile)('sh', [SCRIPT]);
  const folder = stdout.trim();
  return {
    qemu: join(folder, 'qemu'),
    kernel: join(folder, 'vmlinux'),
    initramfs: join(folder, 'initramfs.cpio'),
  };
}
