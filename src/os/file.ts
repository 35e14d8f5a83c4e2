import { existsSync, fstatSync, readdirSync, readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { native } from './native.js';

/** Magic numbers of statfs(2) (linux/magic.h). */
const HUGETLBFS_MAGIC = 0x958458f6;
const TMPFS_MAGIC = 0x01021994;
const THP = '/sys/kernel/mm/transparent_hugepage';

export const SYSTEM_PAGE_BYTES = native.pageBytes();

/** The file behind a mapping, as far as discarding goes. */
export interface BackingFile {
  dev: bigint;
  ino: bigint;
  sizeBytes: number;
  kind: 'shmem' | 'hugetlbfs' | 'other';
  /** The smallest part that can be given back. */
  pageBytes: number;
  /** Pages larger than `pageBytes` may back it, so that larger parts are given back faster. */
  shmemHugePages: boolean;
}

export function describeFile(fd: number): BackingFile {
  const { dev, ino, size } = fstatSync(fd, { bigint: true });
  const { type, bsize } = statfsSync(`/proc/self/fd/${fd}`);
  const kind = type === HUGETLBFS_MAGIC ? 'hugetlbfs' : type === TMPFS_MAGIC ? 'shmem' : 'other';
  return {
    dev,
    ino,
    sizeBytes: Number(size),
    kind,
    pageBytes: kind === 'hugetlbfs' ? bsize : SYSTEM_PAGE_BYTES,
    shmemHugePages: kind === 'shmem' && mayHaveHugePages(fd),
  };
}

/** How long the file is now. */
export function fileBytes(fd: number): number {
  return fstatSync(fd).size;
}

/** What the file takes up now. */
export function allocatedBytes(fd: number): number {
  return fstatSync(fd).blocks * 512;
}

/** Documentation/admin-guide/mm/transhuge.rst, "Hugepages in tmpfs/shmem". */
function mayHaveHugePages(fd: number): boolean {
  const policy = selected(`${THP}/shmem_enabled`);
  if (policy === 'deny' || policy === 'force') return policy === 'force';
  const path = readlinkSync(`/proc/self/fd/${fd}`);
  // The files of memfd_create and of SysV are on a mount without options, where the global settings apply.
  if (!path.startsWith('/memfd:') && !path.startsWith('/SYSV')) return mountAllowsHugePages(fd);
  const policies = sizesOfHugePages().map((size) => selected(`${THP}/${size}/shmem_enabled`));
  // One for each size since Linux 6.11; what they inherit, or what there was before, is the policy for all.
  const known = policies.filter((own) => own !== undefined);
  if (known.length === 0) known.push('inherit');
  return known.some((own) => (own === 'inherit' ? (policy ?? 'never') : own) !== 'never');
}

function mountAllowsHugePages(fd: number): boolean {
  const mount = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
  const mounts = readFileSync('/proc/self/mountinfo', 'latin1').split('\n');
  const options = mounts.find((line) => line.startsWith(`${mount ?? '-'} `)) ?? '';
  return /[ ,]huge=(always|within_size|advise)/.test(options);
}

function sizesOfHugePages(): string[] {
  return existsSync(THP) ? readdirSync(THP).filter((name) => name.startsWith('hugepages-')) : [];
}

/** The word in brackets of a sysfs choice, if this kernel has it. */
function selected(path: string): string | undefined {
  return existsSync(path) ? /\[(\w+)\]/.exec(readFileSync(path, 'latin1'))?.[1] : undefined;
}
