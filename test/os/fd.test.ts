import { openSync, writeSync } from 'node:fs';
import t from 'tap';
import { SystemError } from '../../src/os/errors.js';
import { closeFd, duplicateFd, setNonBlocking } from '../../src/os/fd.js';
import { receive, socketPair } from '../../src/os/socket.js';
import { isCloseOnExec, isNonBlocking, openFds } from './inspect.js';

void t.test('close', (t) => {
  const before = openFds();
  const fd = openSync('/dev/null', 'r');
  closeFd(fd);
  t.equal(openFds(), before);
  t.throws(() => closeFd(fd), { code: 'EBADF', syscall: 'close' });
  t.throws(() => closeFd(-1), TypeError);
  t.end();
});

void t.test('duplicate', (t) => {
  const [a, b] = socketPair();
  const copy = duplicateFd(a);
  t.not(copy, a);
  t.ok(isCloseOnExec(copy));
  writeSync(copy, 'x');
  t.equal(receive(b, new Uint8Array(4), 0, 4, []), 1, 'the same open file');
  for (const fd of [a, b, copy]) closeFd(fd);
  t.throws(() => duplicateFd(copy), { code: 'EBADF', syscall: 'fcntl' });
  t.throws(() => setNonBlocking(copy), SystemError);
  t.end();
});

void t.test('set non-blocking', (t) => {
  const fd = openSync('/dev/null', 'r');
  const shared = duplicateFd(fd);
  t.equal(isNonBlocking(fd), false);
  setNonBlocking(fd);
  t.equal(isNonBlocking(fd), true);
  t.equal(isNonBlocking(shared), true, 'it belongs to the open file');
  closeFd(fd);
  closeFd(shared);
  t.end();
});
