import { existsSync } from 'node:fs';
import { type HostSettings, RefusedError } from './host-settings.js';

const MIB = 2 ** 20;
const HUGE_PAGE_BYTES = 2 * MIB;
const THP = '/sys/kernel/mm/transparent_hugepage';
const NR_HUGEPAGES = '/proc/sys/vm/nr_hugepages';

/** What guest memory is made of. */
export interface Backing {
  readonly name: string;
  /** The smallest part that can be given back. */
  readonly pageBytes: number;
  /** Whether the kernel is to back it with huge pages of its own accord. */
  readonly transparentHugePages: boolean;
  /** Makes the host ready for machines of so many bytes in all. Throws RefusedError. */
  prepare(settings: HostSettings, bytes: number): void;
}

export const BACKINGS: readonly Backing[] = [
  {
    name: '4 KiB shmem',
    pageBytes: 4096,
    transparentHugePages: false,
    prepare: (settings) => setShmemHugePages(settings, 'never'),
  },
  {
    name: 'THP shmem',
    pageBytes: 4096,
    transparentHugePages: true,
    prepare: (settings) => setShmemHugePages(settings, 'advise'),
  },
  {
    name: 'hugetlbfs 2 MiB',
    pageBytes: HUGE_PAGE_BYTES,
    transparentHugePages: false,
    prepare: (settings, bytes) => {
      if (!existsSync(NR_HUGEPAGES)) throw new RefusedError('the kernel has no hugetlbfs');
      settings.add(NR_HUGEPAGES, bytes / HUGE_PAGE_BYTES);
    },
  },
];

/** Since Linux 6.11 each size of huge pages has a policy of its own, and the other is what they may inherit. */
function setShmemHugePages(settings: HostSettings, policy: 'never' | 'advise'): void {
  const own = `${THP}/hugepages-2048kB/shmem_enabled`;
  settings.set(existsSync(own) ? own : `${THP}/shmem_enabled`, policy);
}
