import t from 'tap';
import { checked, SystemError } from '../../src/os/errors.js';

void t.test('an errno becomes its name', (t) => {
  const error = new SystemError(13, 'mmap', 'of 5 bytes');
  t.match(error, {
    name: 'SystemError',
    code: 'EACCES',
    syscall: 'mmap',
    message: 'mmap of 5 bytes: EACCES',
  });
  t.ok(error instanceof Error);
  t.equal(new SystemError(-13, 'mmap').message, 'mmap: EACCES');
  t.end();
});

void t.test('only negative results are errors', (t) => {
  t.equal(checked(0, 'open'), 0);
  t.equal(checked(7, 'open'), 7);
  t.throws(() => checked(-2, 'open', '/x'), { code: 'ENOENT', syscall: 'open', message: 'open /x: ENOENT' });
  t.end();
});
