/** Whether guest memory can be in huge pages, for `balloonctl doctor`. */
import { formatSize } from '../../../protocol/control/size.js';
import type { MemoryMapping, VmmMemory } from '../../host/vmm-memory.js';
import { good, note, type Finding } from './finding.js';

const CHECK = 'huge pages';
const ADVISE = 'echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled';
const ALIGNED_BACKEND =
  'start the VM with memory-backend-ram,share=on, as balloonctl qemu-args prints (libvirt: in qemu:commandline)';

/** QEMU's backends that it maps at any page, by the names of their files. */
const UNALIGNED: readonly (readonly [path: RegExp, backend: string])[] = [
  [/^\/memfd:memory-backend-memfd\b/, 'memory-backend-memfd'],
  [/^\/dev\/shm\/qemu-\d+-shm-/, 'memory-backend-shm'],
  [/\/qemu_back_mem\./, 'memory-backend-file'],
];
/** Files on the kernel's own mount, which goes by shmem_enabled. */
const NAMELESS = /^\/(memfd:|SYSV|dev\/zero\b)/;

interface Hindrance {
  readonly cause: string;
  readonly mend: string;
  /** It is the host's policy alone, which `examinePolicy` names. */
  readonly policy: boolean;
}

const WITHHELD: Hindrance = { cause: 'the host allows none', mend: ADVISE, policy: true };

/**
 * Of the host. `policy`: the kernel's word in shmem_enabled; null: this kernel has none. `reserved`: pages of hugetlbfs. `vms`: the
 * memory of each; null: it cannot be looked at.
 */
export function examinePolicy(
  policy: string | null,
  reserved: number,
  vms: readonly (VmmMemory | null)[],
): Finding {
  const found = `shmem ${policy ?? 'unknown'}; ${reserved} reserved in hugetlbfs`;
  if (policy !== null && policy !== 'never' && policy !== 'deny') return good('host', CHECK, found);
  const helps = (memory: VmmMemory | null): boolean =>
    memory === null || hindrancesOf(memory).some((each) => each.policy);
  if (vms.length === 0 || vms.some(helps)) return note('host', CHECK, found, ADVISE);
  return good('host', CHECK, `${found}; another policy helps no VM that runs now`);
}

/** Of the memory of one VM. */
export function examineHugePages(name: string, memory: VmmMemory): Finding {
  const hindrances = hindrancesOf(memory);
  const own = hindrances.find(({ policy }) => !policy);
  if (own !== undefined) return note(name, CHECK, `never: ${own.cause}`, own.mend);
  if (hindrances.length > 0) return good(name, CHECK, 'none, by the policy of this host');
  const kinds = memory.mappings.map(({ file }) => file.kind);
  if (kinds.includes('disk')) return good(name, CHECK, 'none, some of the memory is in a file on disk');
  if (!kinds.includes('shmem')) return good(name, CHECK, 'all memory is in pages of hugetlbfs');
  return good(name, CHECK, `possible, mapped at multiples of ${formatSize(memory.hugePageBytes)}`);
}

function hindrancesOf({ mayHaveHugePages, mappings, hugePageBytes }: VmmMemory): Hindrance[] {
  const shmem = mappings.filter(({ file }) => file.kind === 'shmem');
  if (shmem.length > 0 && !mayHaveHugePages) {
    const mend = 'start the VM without PR_SET_THP_DISABLE, which the VMM or its parent sets (prctl)';
    return [{ cause: 'they are switched off for the process of the VMM', mend, policy: false }];
  }
  return shmem.map((mapping) => hindranceOf(mapping, hugePageBytes)).filter((each) => each !== null);
}

function hindranceOf({ path, lenBytes, offBytes, file }: MemoryMapping, size: number): Hindrance | null {
  const own = (cause: string, mend: string): Hindrance => ({ cause, mend, policy: false });
  const nameless = NAMELESS.test(path);
  if (offBytes === 0) {
    if (file.shmemHugePages) return null;
    return nameless
      ? WITHHELD
      : own(`${path} is on a tmpfs without them`, 'mount that tmpfs with huge=advise');
  }
  const off = `${formatSize(lenBytes)} are mapped ${formatSize(offBytes)} off the ${formatSize(size)} of a huge page`;
  const [, backend] = UNALIGNED.find(([pattern]) => pattern.test(path)) ?? [];
  if (backend !== undefined) return own(`of ${backend}, ${off}`, ALIGNED_BACKEND);
  // Where a VMM leaves the address to the kernel, the kernel aligns files that may have huge pages at that time.
  if (file.shmemHugePages) return own(`of ${path}, ${off}`, 'start the VM anew');
  if (nameless) return WITHHELD;
  return own(
    `of ${path}, ${off}`,
    `mount its tmpfs with huge=advise and start the VM anew; with QEMU, ${ALIGNED_BACKEND}`,
  );
}
