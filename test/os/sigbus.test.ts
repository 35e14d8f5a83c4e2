// SIGBUS inside a mapping becomes zeros and a count; anywhere else it is what it was before.
import { execFileSync, spawnSync } from 'node:child_process';
import { ftruncateSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { SYSTEM_PAGE_BYTES } from '../../src/os/file.js';
import { faultsSoFar, Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { temporaryFolder } from '../support/fleet.js';
import { HUGE_PAGE_BYTES, reserveHugePages } from '../support/huge-pages.js';
import { runNode, script } from './inspect.js';

const NATIVE = fileURLToPath(new URL('../../../src/native', import.meta.url));

for (const [kind, page, hugePageBytes] of [
  ['4 KiB', SYSTEM_PAGE_BYTES, undefined],
  ['huge', HUGE_PAGE_BYTES, HUGE_PAGE_BYTES],
] as const) {
  void t.test(`${kind} pages that were cut off read as zeros and are counted`, (t) => {
    if (hugePageBytes !== undefined && !reserveHugePages(t, 8)) {
      t.pass('hugetlbfs', { skip: 'no huge pages can be reserved here' });
      t.end();
      return;
    }
    const size = 4 * page;
    const fd = createMemfd('cut', size, hugePageBytes === undefined ? {} : { hugePageBytes });
    const mapping = Mapping.map(fd, 0, size);
    const other = Mapping.map(fd, 0, size);
    const view = new Uint8Array(mapping.view(page - 8, 3 * page));
    mapping.write(0, new Uint8Array(size).fill(7), 0, size);
    const before = faultsSoFar();
    ftruncateSync(fd, page);
    const out = new Uint8Array(2 * page).fill(1);
    mapping.read(page, out, 0, 2 * page);
    t.ok(out.every((byte) => byte === 0));
    t.equal(mapping.faults, 2);
    t.equal(Atomics.load(view, 8), 0, 'known already');
    t.equal(mapping.faults, 2);
    t.equal(Atomics.or(view, 2 * page + 8, 5), 0);
    t.equal(view[2 * page + 8], 5, 'and can be written');
    t.equal(mapping.faults, 3);
    t.equal(view[0], 7, 'what is left is left');
    t.equal(other.faults, 0, 'nobody else is to blame');
    t.equal(faultsSoFar() - before, 3);
    mapping.close();
    t.equal(mapping.faults, 0);
    const next = Mapping.map(fd, 0, page);
    t.equal(next.faults, 0, 'a new mapping begins anew');
    next.close();
    other.close();
    closeFd(fd);
    t.end();
  });
}

void t.test('thousands of mappings', (t) => {
  const page = SYSTEM_PAGE_BYTES;
  const fd = createMemfd('many', page);
  const mappings = Array.from({ length: 2000 }, () => Mapping.map(fd, 0, page));
  ftruncateSync(fd, 0);
  for (const [n, mapping] of mappings.entries()) if (n % 3 === 0) mapping.read(0, new Uint8Array(1), 0, 1);
  t.ok(mappings.every((mapping, n) => mapping.faults === (n % 3 === 0 ? 1 : 0)));
  for (const mapping of mappings) mapping.close();
  closeFd(fd);
  t.end();
});

void t.test('a SIGBUS that was sent still ends the process', (t) => {
  const { signal, stdout } = runNode(
    script(
      { mapping: 'Mapping', memfd: 'createMemfd' },
      `import { ftruncateSync } from 'node:fs';
       const fd = createMemfd('sent', 4096);
       const mapping = Mapping.map(fd, 0, 4096);
       ftruncateSync(fd, 0);
       mapping.read(0, new Uint8Array(1), 0, 1);
       console.log(mapping.faults);
       process.kill(process.pid, 'SIGBUS');
       setTimeout(() => {}, 10_000);`,
    ),
  );
  t.equal(stdout, '1');
  t.equal(signal, 'SIGBUS');
  t.end();
});

/** Cuts a file that is mapped behind the helper's back; with an argument, somebody handled SIGBUS before. */
const OTHERS = `
#define _GNU_SOURCE
#include "native.h"
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void before(int number, siginfo_t *info, void *context)
{
	(void)number, (void)info, (void)context;
	_exit(42);
}

int main(int count, char **arguments)
{
	struct sigaction action = { .sa_sigaction = before, .sa_flags = SA_SIGINFO };
	struct bd_mapping mapping;
	int fd = memfd_create("ours", 0), other = memfd_create("other", 0);
	volatile char *foreign;

	(void)arguments;
	if (count > 1)
		sigaction(SIGBUS, &action, NULL);
	if (ftruncate(fd, 8192) < 0 || ftruncate(other, 4096) < 0 || bd_map(&mapping, fd, 0, 8192) < 0)
		return 1;
	foreign = mmap(NULL, 4096, PROT_READ, MAP_SHARED, other, 0);
	if (ftruncate(fd, 0) < 0 || ftruncate(other, 0) < 0)
		return 1;
	printf("%d", *(volatile char *)(mapping.address + 5000));
	printf(" %u\\n", bd_faults(&mapping));
	fflush(stdout);
	return *foreign;
}
`;

void t.test('a fault in memory that is not ours goes to who had the signal before', (t) => {
  const folder = temporaryFolder(t);
  const program = join(folder, 'others');
  const sources = ['sigbus.c', 'mapping.c', 'discard.c'].map((name) => join(NATIVE, name));
  execFileSync('cc', ['-O2', '-I', NATIVE, '-o', program, '-x', 'c', '-', ...sources], { input: OTHERS });
  const byDefault = spawnSync(program, [], { encoding: 'latin1' });
  t.match(byDefault, { stdout: '0 1\n', signal: 'SIGBUS' });
  const handled = spawnSync(program, ['handled'], { encoding: 'latin1' });
  t.match(handled, { stdout: '0 1\n', status: 42, signal: null });
  t.end();
});
