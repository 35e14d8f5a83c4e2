// The ring of the last hour: one sample each ten seconds, over restarts, and no more than its file has room for.
import { ftruncateSync, writeSync } from 'node:fs';
import t from 'tap';
import { SAMPLE_MS, SAMPLES } from '../../protocol/control/live.js';
import { HistoryMemory, takeOverHistory } from '../../src/ops/history-memory.js';
import { duplicateFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';

const BEGIN = SAMPLE_MS * 1_000_000;
const all = (): boolean => true;
const at = (n: number): number => BEGIN + n * SAMPLE_MS;

void t.test('a sample is kept for an hour, one each ten seconds', (t) => {
  const memory = HistoryMemory.create();
  t.teardown(() => memory.close());
  memory.add(at(0), new Map([['a', 1]]));
  memory.add(at(0) + 5000, new Map([['a', 2]]));
  memory.add(
    at(1),
    new Map([
      ['a', 3],
      ['b', 2 ** 40],
    ]),
  );
  memory.add(at(3), new Map([['b', 5]]));
  t.same(memory.read(at(3), all), {
    times: [at(0), at(1), at(3)],
    series: { a: [1, 3, null], b: [null, 2 ** 40, 5] },
  });
  t.same(memory.read(at(3), (name) => name === 'b').series, { b: [null, 2 ** 40, 5] });
  t.same(memory.read(at(SAMPLES), all).times, [at(1), at(3)], 'after an hour the first is gone');
  memory.add(at(SAMPLES), new Map([['a', 9]]));
  t.same(memory.read(at(SAMPLES), all), {
    times: [at(1), at(3), at(SAMPLES)],
    series: { a: [3, null, 9], b: [2 ** 40, 5, null] },
  });
  t.same(memory.read(at(2), all).times, [at(1)], 'a clock that was set back shows nothing of later');
  t.end();
});

void t.test('the next daemon goes on with it', (t) => {
  const memory = HistoryMemory.create();
  memory.add(at(0), new Map([['allocated web-é', 7]]));
  const fd = duplicateFd(memory.fd);
  memory.close();
  const broken = createMemfd('other', 4096);
  const next = takeOverHistory([broken, fd]);
  t.teardown(() => next.close());
  next.add(at(1), new Map([['allocated web-é', 8]]));
  t.same(next.read(at(1), all), { times: [at(0), at(1)], series: { 'allocated web-é': [7, 8] } });
  t.end();
});

void t.test('a file that is none of this layout is set aside', (t) => {
  const other = HistoryMemory.create();
  writeSync(other.fd, new Uint8Array([9]), 0, 1, 4);
  t.equal(HistoryMemory.open(other.fd), null, 'of another layout');
  ftruncateSync(other.fd, 4096);
  t.equal(HistoryMemory.open(other.fd), null, 'cut short');
  other.close();
  const fresh = takeOverHistory([]);
  t.same(fresh.read(at(0), all), { times: [], series: {} });
  fresh.close();
  t.end();
});

void t.test('series that are over make room, and those that find none have no history', (t) => {
  const memory = HistoryMemory.create();
  t.teardown(() => memory.close());
  const many = (prefix: string): Map<string, number> =>
    new Map(Array.from({ length: 4000 }, (_, n) => [`${prefix}-${n}`, n]));
  memory.add(at(0), many('a'));
  const room = Object.keys(memory.read(at(0), all).series).length;
  t.ok(room > 2000 && room < 4000, `${room} series`);
  memory.add(at(1), many('b'));
  t.notOk(Object.keys(memory.read(at(1), all).series).some((name) => name.startsWith('b')));
  memory.add(at(SAMPLES + 1), new Map());
  memory.add(at(SAMPLES + 2), many('b'));
  const names = Object.keys(memory.read(at(SAMPLES + 2), all).series);
  t.equal(names.length, room);
  t.ok(names.every((name) => name.startsWith('b')));
  memory.add(at(SAMPLES + 3), new Map([['x'.repeat(1000), 1]]));
  t.equal(Object.keys(memory.read(at(SAMPLES + 3), all).series).length, room, 'a name that is too long');
  t.end();
});

void t.test('names are data', (t) => {
  const memory = HistoryMemory.create();
  t.teardown(() => memory.close());
  memory.add(at(0), new Map([['__proto__', 1]]));
  t.same(Object.keys(memory.read(at(0), all).series), ['__proto__']);
  t.end();
});
