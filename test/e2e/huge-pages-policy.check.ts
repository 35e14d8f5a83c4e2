// Two real Linux guests in a pool of huge pages that is too small for both, of which the policy takes and gives.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { PolicyState } from '../../protocol/control/schema.js';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { HUGE_PAGE_BYTES, OwnPool } from '../support/huge-pages.js';
import type { Guest } from '../support/lab/guest.js';

t.setTimeout(0);

const SLOW_MS = 240_000;
const GOLD_MIB = 384;
const BRONZE_MIB = 192;
/** Enough for gold, and with memory that gold gives for bronze as well. */
const POOL_MIB = 448;
/** A guest grows by so much at once: the reserve of the pool is there for that. */
const STEP_MIB = 10;
const GROWTH_MIB = 150;

const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"
stats-interval = 0.5

[policy]
mode = "auto"
reserve = "40%"
share-pools = true
interval = 0.5
ramp = "10%"
hold = 2

[[policy.band]]
name = "gold"
match = ["gold-*"]
min = "20%"

[[policy.band]]
name = "bronze"
match = ["bronze-*"]
min = "45%"
`;

async function ok(guest: Guest, command: string): Promise<void> {
  const { code, output } = await guest.sh(command);
  if (code !== 0) throw new Error(`${guest.name}: ${command} ended with ${code}: ${output}`);
}

void t.test('a guest in a pool grows, the policy takes from the other, and neither VMM dies', async (t) => {
  const pool = OwnPool.make(t, (POOL_MIB * MIB) / HUGE_PAGE_BYTES);
  const daemon = await startDaemon(t, { config: CONFIG });
  const show = async (): Promise<PolicyState> =>
    JSON.parse(await daemon.ok('policy', 'show', '--json')) as PolicyState;

  const gold = await boot(t, daemon, 'gold-1', { memoryMib: GOLD_MIB, memoryFolder: pool.folder });
  await gold.hold(20, 1);
  t.ok(await gold.eat(250, SLOW_MS), 'gold touches its memory');
  const needed = (BRONZE_MIB * MIB) / HUGE_PAGE_BYTES;
  await daemon.until(
    'gold-1',
    () => pool.free >= needed,
    'the policy fills the pool from the idle memory of gold',
  );

  const bronze = await boot(t, daemon, 'bronze-1', { memoryMib: BRONZE_MIB, memoryFolder: pool.folder });
  await bronze.hold(10, 2);
  t.ok(await bronze.eat(60, SLOW_MS), 'bronze touches its memory');
  await daemon.until('bronze-1', ({ balloon }) => balloon.actualBytes > 0, 'bronze gives memory');

  const before = await daemon.show('gold-1');
  await ok(gold, 'mkdir /work && mount -t tmpfs -o size=100% none /work');
  for (let grown = 0; grown < GROWTH_MIB; grown += STEP_MIB) {
    await ok(gold, `dd if=/dev/zero bs=1M count=${STEP_MIB} 2>/dev/null >>/work/data`);
    await sleep(500);
  }
  const after = await daemon.until(
    'gold-1',
    ({ balloon }) => balloon.actualBytes < before.balloon.actualBytes,
    'gold has more memory',
  );
  const events = (await daemon.events()).filter(({ event }) => event.startsWith('policy-'));
  for (const { time, message } of events) t.comment(`${time} ${message}`);
  t.comment(await daemon.ok('policy', 'show'));
  for (const name of ['gold-1', 'bronze-1']) t.comment(await daemon.ok('policy', 'explain', name));
  t.comment(
    `gold: ${before.balloon.actualBytes / MIB} to ${after.balloon.actualBytes / MIB} MiB in its balloon`,
  );

  const moved = events.filter(({ event }) => event === 'policy-took' || event === 'policy-gave');
  t.ok(
    moved.some(({ event, vm }) => event === 'policy-gave' && vm === 'gold-1'),
    'the policy gave to gold',
  );
  t.ok(
    moved.some(({ event, vm }) => event === 'policy-took' && vm === 'bronze-1'),
    'and took from bronze',
  );
  for (const { message } of moved) t.match(message, /available to VMs in the pool of 2 MiB pages \S+ %/);
  t.same(
    events.filter(({ event }) => event === 'policy-degraded' || event === 'policy-forced'),
    [],
  );
  const { pools } = await show();
  t.match(pools, [{ pageBytes: HUGE_PAGE_BYTES }]);
  t.equal(await gold.verify(), 0, 'gold has what it held');
  t.equal(await bronze.verify(), 0, 'bronze has what it held');
  t.equal(Number((await gold.sh('wc -c </work/data')).output), GROWTH_MIB * MIB);
  for (const name of ['gold-1', 'bronze-1']) {
    t.equal((await daemon.stats(name))['VIRTIO_BALLOON_S_OOM_KILL'], 0, `${name}: nothing was killed`);
    t.equal((await daemon.show(name)).state, 'running');
  }
});
