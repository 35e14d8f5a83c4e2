import t from 'tap';
import { SharedMemory } from '../../src/host/vmm-memory.js';
import { HUGE_PAGE_BYTES, reserveHugePages } from '../support/huge-pages.js';
import { lookAt, MAPPED_BYTES } from '../support/mapping-vmm.js';

const AS_ROOT = { skip: process.getuid?.() === 0 ? false : 'needs root' };
const BEHIND = [0, 4096, HUGE_PAGE_BYTES - 4096, HUGE_PAGE_BYTES / 2];

void t.test('how far mappings are off is what the kernel goes by', AS_ROOT, (t) => {
  const mapped = ['/mnt/', 'memfd:ram-'].flatMap((name) =>
    BEHIND.map((behind) => ({ file: `${name}${behind}`, behind })),
  );
  const { memory, eligible } = lookAt(mapped);
  t.match(memory, { hugePageBytes: HUGE_PAGE_BYTES, mayHaveHugePages: true });
  t.equal(memory?.mappings.length, mapped.length);
  for (const [index, { file, behind }] of mapped.entries()) {
    const seen = memory?.mappings.find(
      ({ path }) => path.replace(/^\/(memfd:.*) \(deleted\)$/, '$1') === file,
    );
    t.match(seen, { lenBytes: MAPPED_BYTES, offBytes: Math.min(behind, HUGE_PAGE_BYTES - behind) }, file);
    t.equal(
      eligible[index],
      seen?.offBytes === 0 && seen.file.shmemHugePages,
      `the kernel's word of ${file}`,
    );
  }
  t.same(eligible.slice(0, BEHIND.length), [true, false, false, false], 'of the tmpfs that has huge pages');
  t.end();
});

void t.test('a process that has no huge pages', AS_ROOT, (t) => {
  t.match(lookAt([{ file: '/mnt/ram', behind: 0 }], true), {
    eligible: [false],
    memory: { mayHaveHugePages: false, mappings: [{ offBytes: 0, file: { shmemHugePages: true } }] },
  });
  t.end();
});

void t.test('hugetlbfs', AS_ROOT, (t) => {
  if (!reserveHugePages(t, MAPPED_BYTES / HUGE_PAGE_BYTES)) {
    t.pass('hugetlbfs', { skip: 'no huge pages can be reserved here' });
    t.end();
    return;
  }
  const { memory } = lookAt([{ file: 'hugetlb', behind: 0 }]);
  t.match(memory?.mappings, [{ file: { kind: 'hugetlbfs', pageBytes: HUGE_PAGE_BYTES }, offBytes: 0 }]);
  t.end();
});

void t.test('nothing is said of memory that is not shared, and of processes that are gone', AS_ROOT, (t) => {
  t.equal(lookAt([{ file: 'memfd:private', behind: 0, shared: false }]).memory, null);
  const gone = 2 ** 30;
  t.equal(new SharedMemory(gone).of(process.pid), null);
  t.equal(new SharedMemory(process.pid).of(gone), null);
  t.end();
});
