import { existsSync, fstatSync, readdirSync, readlinkSync, statfsSync } from 'node:fs';
import { checked } from './errors.js';
import { readKernelFile } from './kernel-file.js';
import { native } from './native.js';

/** Magic numbers of statfs(2) (linux/magic.h). */
const HUGETLBFS_MAGIC = 0x958458f6;
const THP = '/sys/kernel/mm/transparent_hugepage';

export const SYSTEM_PAGE_BYTES = native.pageBytes();

/**
 * File systems of this host's disks. Any other may be served by the VMM itself, or from far away, and could hold whoever asks
 * it something for ever.
 */
const DISK_FILE_SYSTEMS = /^(ext[234]|xfs|btrfs|f2fs|bcachefs|zfs)$/;

/** The file behind a mapping, as far as discarding goes. */
export interface BackingFile {
  dev: bigint;
  ino: bigint;
  sizeBytes: number;
  /** Of these, `other` is asked nothing: its inode and size are unknown. */
  kind: 'shmem' | 'hugetlbfs' | 'disk' | 'other';
  /** The smallest part that can be given back. */
  pageBytes: number;
  /** Pages larger than `pageBytes` may back it, so that larger parts are given back faster. */
  shmemHugePages: boolean;
}

/** `openedBy`: the process that opened the file, whose mounts may be others than ours; null: this one. */
export function describeFile(fd: number, openedBy: number | null = null): BackingFile {
  const inMemory = checked(native.isMemory(fd), 'fcntl') === 1;
  if (!inMemory && !isOnDisk(fd, openedBy)) {
    return {
      dev: 0n,
      ino: 0n,
      sizeBytes: 0,
      kind: 'other',
      pageBytes: SYSTEM_PAGE_BYTES,
      shmemHugePages: false,
    };
  }
  const { dev, ino, size } = fstatSync(fd, { bigint: true });
  const { type, bsize } = statfsSync(`/proc/self/fd/${fd}`);
  const kind = !inMemory ? 'disk' : type === HUGETLBFS_MAGIC ? 'hugetlbfs' : 'shmem';
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

/** What the file takes up now. Asked of each VM every few seconds: Node's fstat makes an object of 18 figures and four dates. */
export function allocatedBytes(fd: number): number {
  return checked(native.allocated(fd), 'fstat');
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
  return /[ ,]huge=(always|within_size|advise)/.test(mountOf(fd, 'self'));
}

function isOnDisk(fd: number, openedBy: number | null): boolean {
  const lookers: ('self' | number)[] = openedBy === null ? ['self'] : ['self', openedBy];
  return lookers.some((pid) => {
    const type = / - (\S+) /.exec(mountOf(fd, pid))?.[1];
    return type !== undefined && DISK_FILE_SYSTEMS.test(type);
  });
}

/** The line of the file's mount among those that the process sees (proc_pid_mountinfo(5)); empty where it sees none such. */
function mountOf(fd: number, pid: number | 'self'): string {
  const mount = /^mnt_id:\s*(\d+)$/m.exec(readKernelFile(`/proc/self/fdinfo/${fd}`))?.[1];
  try {
    const mounts = readKernelFile(`/proc/${pid}/mountinfo`).split('\n');
    return mounts.find((line) => line.startsWith(`${mount ?? '-'} `)) ?? '';
  } catch {
    // The process ended, or may not be looked at.
    return '';
  }
}

function sizesOfHugePages(): string[] {
  return existsSync(THP) ? readdirSync(THP).filter((name) => name.startsWith('hugepages-')) : [];
}

/** The word in brackets of a sysfs choice, if this kernel has it. */
function selected(path: string): string | undefined {
  return existsSync(path) ? /\[(\w+)\]/.exec(readKernelFile(path))?.[1] : undefined;
}
