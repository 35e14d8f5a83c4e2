import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { LineWriter } from '../../src/os/line-writer.js';

const OLDEST = 1000;
const LINES = 4000;

void t.test('every line is written or counted, in order and whole', async (t) => {
  const path = join(t.testdir(), 'pipe');
  execFileSync('mkfifo', [path]);
  const pipe = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const fd = openSync(path, constants.O_WRONLY);
  const writer = new LineWriter(fd);
  closeSync(fd);
  let dropped = 0;
  writer.onDropped = (lines) => (dropped += lines);
  for (let n = 0; n < LINES; n++) writer.write(`${n} ${'x'.repeat(100)}\n`);
  writer.flush();
  t.equal(dropped, 0, 'nobody has read yet');
  let text = '';
  const buffer = Buffer.alloc(65536);
  while (dropped === 0 || text.split('\n').length - 1 + dropped < LINES) {
    try {
      text += buffer.toString('utf8', 0, readSync(pipe, buffer));
    } catch {
      await sleep(5);
    }
  }
  const numbers = text
    .trimEnd()
    .split('\n')
    .map((line) => Number(/^(\d+) x{100}$/.exec(line)?.[1]));
  // The first lines may leave for the pipe before or after there is no room for more.
  t.same(numbers.slice(0, OLDEST), [...Array(OLDEST).keys()], 'the oldest are kept');
  t.ok(
    numbers.every((number, n) => number > (numbers[n - 1] ?? -1)),
    'in order',
  );
  t.equal(numbers.length + dropped, LINES);
  writer.write('more\n');
  writer.flush();
  t.equal(buffer.toString('utf8', 0, readSync(pipe, buffer)), 'more\n');
  writer.close();
  closeSync(pipe);
});

void t.test('a file has all that was written when the process ends', (t) => {
  const path = join(t.testdir(), 'log');
  const fd = openSync(path, 'a');
  const writer = new LineWriter(fd);
  closeSync(fd);
  for (let n = 0; n < 100; n++) writer.write(`${n}\n`);
  writer.flush();
  t.equal(readFileSync(path, 'utf8').split('\n').length - 1, 100);
  t.throws(() => new LineWriter(99_999), { code: 'EBADF' });
  writer.close();
  t.end();
});
