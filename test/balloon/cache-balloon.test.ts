// What the page cache balloon makes of bytes.
import t from 'tap';
import { decodeRange } from '../../protocol/virtio/cache-balloon.js';
import { BlockRuns } from '../../src/balloon/block-runs.js';
import { CacheConfig } from '../../src/balloon/cache-config.js';
import { ranges } from '../support/cache-driver.js';

function config(): CacheConfig {
  return new CacheConfig({ words: new Uint32Array(16) });
}

void t.test('a range is an aligned block', (t) => {
  t.same(decodeRange(0x0020_0009, 0), { firstPfn: 512, pages: 512 });
  t.same(decodeRange(0x0000_1000, 1), { firstPfn: 2 ** 20 + 1, pages: 1 });
  t.same(decodeRange(0xffff_f000, 0xffff_ffff), { firstPfn: 2 ** 52 - 1, pages: 1 });
  t.equal(decodeRange(0x0020_1009, 0), null, 'not aligned');
  t.equal(decodeRange(0x13, 0), null, 'larger than 1 GiB');
  t.equal(decodeRange(0xfff, 0), null);
  t.end();
});

void t.test('blocks leave as the fewest runs, lowest first', (t) => {
  const runs = new BlockRuns();
  const blocks = [
    { pfn: 512, order: 9 },
    { pfn: 0, order: 0 },
    { pfn: 3, order: 0 },
    { pfn: 4, order: 0 },
    { pfn: 1, order: 0 },
    { pfn: 600, order: 3 },
    { pfn: 1024, order: 0 },
    { pfn: 4, order: 0 },
  ];
  t.same(runs.bounds(), { first: Infinity, last: -1 });
  runs.add(ranges(blocks.slice(0, 3)));
  runs.add(ranges(blocks.slice(3)));
  t.same(runs.bounds(), { first: 0, last: 1024 });
  t.throws(
    () =>
      runs.add(
        ranges([
          { pfn: 7, order: 0 },
          { pfn: 1, order: 1 },
        ]),
      ),
    /0x1001 is no aligned block/,
  );
  const seen: number[][] = [];
  runs.drain((first, pages) => seen.push([first, pages]));
  t.same(seen, [
    [0, 2],
    [3, 2],
    [512, 513],
  ]);
  runs.drain(() => t.fail('drained'));
  t.end();
});

void t.test('of a write only what is the driver’s is taken', (t) => {
  const space = config();
  space.numPages = 7;
  space.lock = true;
  const whole = new Uint32Array([99, 5, 0, 0, 0, 0, 1]);
  space.askForStats();
  t.notOk(space.write(0, new Uint8Array(whole.buffer)), 'a stale copy answers nothing');
  t.same([space.numPages, space.actual, space.lock], [7, 5, true]);
  whole[2] = 1000;
  t.ok(space.write(0, new Uint8Array(whole.buffer)));
  t.notOk(space.write(0, new Uint8Array(whole.buffer)), 'nobody asked again');
  t.same([...space.read(24, 8)], [1, 0, 0, 0, 0, 0, 0, 0], 'zeros follow');
  t.end();
});
