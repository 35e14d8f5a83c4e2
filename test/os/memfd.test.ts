import { fstatSync, readlinkSync } from 'node:fs';
import t from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { isCloseOnExec, openFds } from './inspect.js';

void t.test('a file in memory', (t) => {
  const fd = createMemfd('ledger', 12_345);
  t.match(fstatSync(fd), { size: 12_345, blocks: 0 });
  t.equal(readlinkSync(`/proc/self/fd/${fd}`), '/memfd:ledger (deleted)');
  t.ok(isCloseOnExec(fd));
  closeFd(fd);
  t.end();
});

void t.test('what cannot be made', (t) => {
  const before = openFds();
  t.throws(() => createMemfd('x'.repeat(250), 4096), { code: 'ENAMETOOLONG', syscall: 'memfd_create' });
  t.throws(() => createMemfd('a\0b', 4096), { code: 'EINVAL' });
  t.throws(() => createMemfd('negative', -1), TypeError);
  t.throws(() => createMemfd('page', 4096, { hugePageBytes: 5000 }), TypeError);
  t.throws(() => createMemfd('page', 4096, { hugePageBytes: 4096 }), {
    code: 'ENODEV',
    syscall: 'memfd_create',
  });
  t.equal(openFds(), before);
  t.end();
});
