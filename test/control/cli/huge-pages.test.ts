import t from 'tap';
import { examineHugePages, examinePolicy } from '../../../src/control/cli/huge-pages.js';
import type { MemoryMapping, VmmMemory } from '../../../src/host/vmm-memory.js';

const HUGE = 2 ** 21;
const MEMFD = '/memfd:memory-backend-memfd (deleted)';
const RAM = '/memfd:balloon-mem (deleted)';
const ALIGNED = /^start the VM with memory-backend-ram,share=on, as balloonctl qemu-args prints/;

type Change = Partial<Omit<MemoryMapping, 'file'>> & Partial<MemoryMapping['file']>;

function memory(mappings: readonly Change[], mayHaveHugePages = true): VmmMemory {
  return {
    mayHaveHugePages,
    hugePageBytes: HUGE,
    mappings: mappings.map(
      ({ path = RAM, lenBytes = 2 ** 31, offBytes = 0, kind = 'shmem', shmemHugePages = true }) => ({
        ...{ path, lenBytes, offBytes },
        file: { kind, pageBytes: kind === 'shmem' ? 4096 : HUGE, shmemHugePages },
      }),
    ),
  };
}

const CASES: readonly (readonly [Change, found: string | RegExp, mend: string | RegExp | null])[] = [
  [{}, 'possible, mapped at multiples of 2 MiB', null],
  [{ shmemHugePages: false }, 'none, by the policy of this host', null],
  [{ kind: 'hugetlbfs', path: MEMFD, shmemHugePages: false }, 'all memory is in pages of hugetlbfs', null],
  [
    { path: MEMFD, offBytes: 4096, shmemHugePages: false },
    'never: of memory-backend-memfd, 2 GiB are mapped 4 KiB off the 2 MiB of a huge page',
    ALIGNED,
  ],
  [{ path: MEMFD, offBytes: 4096 }, /^never: of memory-backend-memfd, /, ALIGNED],
  [
    { path: '/dev/shm/qemu-1168-shm-0 (deleted)', offBytes: 4096 },
    /^never: of memory-backend-shm, /,
    ALIGNED,
  ],
  [
    { path: '/ram/qemu_back_mem.mem.FEtLib (deleted)', offBytes: 4096 },
    /^never: of memory-backend-file, /,
    ALIGNED,
  ],
  [
    { path: '/ram/qemu_back_mem.mem.FEtLib (deleted)', shmemHugePages: false },
    /^never: .* is on a tmpfs without them$/,
    'mount that tmpfs with huge=advise',
  ],
  // The kernel puts the file of another VMM at any page while the host allows no huge pages, and aligned from then on.
  [{ path: '/memfd:ch_ram (deleted)', offBytes: 4096, shmemHugePages: false }, /^none, by the policy/, null],
  [{ path: '/memfd:ch_ram (deleted)', offBytes: 4096 }, /^never: of .*ch_ram/, 'start the VM anew'],
  [
    { path: '/ram/vm.mem', offBytes: 4096, shmemHugePages: false },
    /^never: of \/ram\/vm\.mem, /,
    /^mount its tmpfs with huge=advise and start the VM anew; with QEMU, /,
  ],
];

void t.test('each thing that keeps a VM from huge pages is named with what mends it', (t) => {
  for (const [change, found, mend] of CASES) {
    const finding = examineHugePages('web1', memory([change]));
    t.match(finding, { subject: 'web1', check: 'huge pages', level: mend === null ? 'ok' : 'note', found });
    t.match(finding.mend, mend);
  }
  const second = examineHugePages('web1', memory([{}, { path: MEMFD, offBytes: 4096, lenBytes: 2 ** 29 }]));
  t.match(second.found, 'never: of memory-backend-memfd, 512 MiB are mapped', 'memory that was plugged in');
  t.match(examineHugePages('web1', memory([{}], false)), { level: 'note', mend: /PR_SET_THP_DISABLE/ });
  t.match(examineHugePages('web1', memory([{ kind: 'hugetlbfs' }], false)), { level: 'ok' });
  t.end();
});

void t.test('another policy of the host is advised where it helps a VM', (t) => {
  const advice = /^echo advise >.*shmem_enabled$/;
  const level = (policy: string | null, ...vms: (VmmMemory | null)[]): string => {
    const finding = examinePolicy(policy, 3, vms);
    t.match(finding, { subject: 'host', found: /^shmem \w+; 3 reserved in hugetlbfs/ });
    t.match(finding.mend, finding.level === 'ok' ? null : advice);
    return finding.level;
  };
  const [never, withheld] = [
    memory([{ path: MEMFD, offBytes: 4096, shmemHugePages: false }]),
    memory([{ shmemHugePages: false }]),
  ];
  t.equal(level('advise', withheld), 'ok');
  for (const policy of ['never', 'deny', null]) t.equal(level(policy), 'note', 'VMs that come');
  t.equal(level('never', withheld), 'note');
  t.equal(level('never', never, withheld), 'note');
  t.equal(level('never', never, null), 'note', 'a VM whose memory cannot be looked at');
  t.equal(level('never', never), 'ok');
  t.equal(level('never', memory([{ kind: 'hugetlbfs', shmemHugePages: false }])), 'ok');
  t.equal(level('never', memory([{ shmemHugePages: false }], false)), 'ok');
  t.match(examinePolicy('never', 0, [never]).found, /; another policy helps no VM that runs now$/);
  t.end();
});
