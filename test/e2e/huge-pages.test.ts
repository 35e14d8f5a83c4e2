// Two real Linux guests on hugetlbfs, with a pool that is too small for both: neither VMM dies.
import t from 'tap';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { HUGE_PAGE_BYTES, OwnPool } from '../support/huge-pages.js';

const SLOW_MS = 240_000;
/** Of the pool beyond the memory of the first guest: with what that gives up it is enough for the second. */
const SPARE_PAGES = 24;

void t.test('a guest waits for huge pages that another VM has, and neither VMM dies', async (t) => {
  const pool = OwnPool.make(t, (512 * MIB) / HUGE_PAGE_BYTES + SPARE_PAGES);
  const daemon = await startDaemon(t);
  const first = await boot(t, daemon, 'first', { memoryFolder: pool.folder });
  t.ok(await first.eat(400, SLOW_MS), 'the first guest touches its memory, and the pool is used up');
  await first.hold(60, 1);
  await daemon.ok('set', 'first', '--balloon', '300M', '--wait');
  await daemon.until('first', () => pool.free > 128, 'the pool has enough for the second VM');

  const second = await boot(t, daemon, 'second', { memoryMib: 256, memoryFolder: pool.folder });
  t.ok(await second.eat(160, SLOW_MS), 'the second guest has them now');
  await daemon.ok('set', 'first', '--balloon', '0');
  const { verdict } = await daemon.until(
    'first',
    ({ diagnosis }) => diagnosis?.code === 'huge-pages-short',
    'the first guest waits',
  );
  t.match(verdict, /^the guest takes memory back and waits for .* of it, because the pool of/);
  t.equal(await first.verify(), 0, 'it runs, and has what it held');
  t.ok((await daemon.stats('first'))['VIRTIO_BALLOON_S_MEMTOT'], 'its statistics come');
  t.ok(await second.eat(160, SLOW_MS), 'the other VM goes on');

  // The second gives memory up, and the first gets it.
  const { balloon } = await daemon.show('first');
  await daemon.ok('set', 'second', '--balloon', '120M', '--wait');
  await daemon.until('first', (vm) => vm.balloon.actualBytes < balloon.actualBytes, 'it goes on');
  await second.kill();
  await daemon.until('first', (vm) => vm.balloon.actualBytes === 0, 'it has all of its memory again');
  t.ok(await first.eat(330, SLOW_MS), 'and uses it');
  t.equal(await first.verify(), 0);
  t.equal((await daemon.show('first')).diagnosis, null);
});

void t.test(
  'a guest that is reset has its memory again, although another program wants the pages',
  async (t) => {
    const pool = OwnPool.make(t, (512 * MIB) / HUGE_PAGE_BYTES);
    const daemon = await startDaemon(t);
    const guest = await boot(t, daemon, 'reset', { memoryFolder: pool.folder });
    t.ok(await guest.eat(400, SLOW_MS));
    await daemon.ok('set', 'reset', '--balloon', '300M', '--wait');
    await daemon.until('reset', () => pool.free > 100, 'the pool has pages');
    const up = guest.systemReset();
    await daemon.until('reset', ({ state }) => state === 'stopped', 'the guest is reset');
    // All that are free, at the first moment at which the guest may use its memory.
    const { free } = pool;
    const giveBack = free > 0 ? pool.take(free) : () => undefined;
    t.ok(free < 10, `the other program gets ${free} pages`);
    await daemon.ok('set', 'reset', '--balloon', '0');
    await up;
    t.ok(await guest.eat(400, SLOW_MS), 'the guest uses all of its memory');
    t.equal((await daemon.show('reset')).diagnosis, null);
    giveBack();
  },
);
