/**
 * A guest that nobody changed, whose balloon follows its working set, or one with a page cache balloon without a limit: with
 * anonymous memory and page cache that is read over and over, beside a cold stream, and with anonymous memory of another size
 * each minute.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import { buildCacheModule, CACHE_SOCKETS, loadCacheModule } from '../test/support/lab/cache-module.js';
import type { Guest } from '../test/support/lab/guest.js';
import { SIZED } from '../test/support/sized.js';
import { oneOf, someOf } from './choice.js';
import { diskOf, LOOK_MS, readMib } from './host-samples.js';
import { median, report, type Row } from './table.js';
import { bootContender } from './working-sets.js';

const MIB = 2 ** 20;
const MEMORY_MIB = 1024;
const ANONYMOUS_MIB = 128;
const REREAD_MIB = 128;
const DISKS = [
  { name: 'cold', mib: 64 * MEMORY_MIB, mibPerSecond: 64 },
  { name: 'hot', mib: MEMORY_MIB, mibPerSecond: 128 },
];
/** The policy finds out in the first of them that there is a stream. */
const BOTH_SECONDS = { before: 90, sampled: 60 } as const;
const SIZES_MIB = [128, 384, 192, 512, 64, 256];
const MOVE_SECONDS = 60;
/** A size is told by the last part of its minute. */
const LAST_SAMPLES = 20_000 / LOOK_MS;
const WITHIN = 0.1;
const EXPLORES_MIB = 128;
const CONTENDERS = ['traditional, sized by the host', 'page cache'] as const;

const { values } = parseArgs({
  options: { only: { type: 'string' }, contender: { type: 'string', default: CONTENDERS[0] } },
});
const parts = someOf('--only', ['both', 'moves'], values.only);
const contender = oneOf('--contender', CONTENDERS, values.contender);

async function sample(guest: Guest, seconds: number): Promise<number[]> {
  const samples: number[] = [];
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    await pause(LOOK_MS);
    samples.push(guest.memfdAllocatedBytes() / MIB);
  }
  return samples;
}

function row(what: string, wantedMib: number, samples: readonly number[]): Row {
  const mib = median(samples);
  return {
    'working set': what,
    'floor + sum MiB': wantedMib.toFixed(0),
    'host MiB (least..most)': `${mib.toFixed(0)} (${Math.min(...samples).toFixed(0)}..${Math.max(...samples).toFixed(0)})`,
    'beyond %': ((mib / wantedMib - 1) * 100).toFixed(0),
  };
}

/** How often host memory rose far beyond what it should be. */
function explored(samples: readonly number[], wantedMib: number): number {
  const far = samples.map((mib) => mib > wantedMib + EXPLORES_MIB);
  return far.filter((is, n) => is && far[n - 1] !== true).length;
}

async function both(guest: Guest, floorMib: number): Promise<Row> {
  const [cold, hot] = [await diskOf(guest, 'cold'), await diskOf(guest, 'hot')];
  await guest.hold(ANONYMOUS_MIB, 1);
  await guest.sh(`dd if=${cold} of=/dev/null bs=1M >/dev/null 2>&1 & echo $! >/dd.pid`);
  await guest.sh(`sleep 1000000 <${hot} >/dev/null 2>&1 &`);
  await guest.sh(
    `(n=0; while :; do dd if=${hot} of=/dev/null bs=1M count=${REREAD_MIB} 2>/dev/null; n=$((n+1)); echo $n >/n; done) >/dev/null 2>&1 & echo $! >/loop.pid`,
  );
  await sample(guest, BOTH_SECONDS.before);
  const counts = async () => ({
    loops: Number((await guest.sh('cat /n')).output),
    hot: await readMib(guest, hot),
    cold: await readMib(guest, cold),
  });
  const before = await counts();
  const samples = await sample(guest, BOTH_SECONDS.sampled);
  const after = await counts();
  await guest.sh('kill $(cat /dd.pid) $(cat /loop.pid)');
  const read = (after.loops - before.loops) * REREAD_MIB;
  const wantedMib = floorMib + ANONYMOUS_MIB + REREAD_MIB;
  return {
    ...row(
      `${ANONYMOUS_MIB} MiB anonymous + ${REREAD_MIB} MiB read over and over, beside a stream`,
      wantedMib,
      samples,
    ),
    's to 10 %': '',
    'loops MiB/s': (read / BOTH_SECONDS.sampled).toFixed(0),
    'read again %': (((after.hot - before.hot) / read) * 100).toFixed(1),
    'stream MiB/s': ((after.cold - before.cold) / BOTH_SECONDS.sampled).toFixed(0),
    explorations: explored(samples, wantedMib),
    'damaged pages': await guest.verify(),
  };
}

async function moves(guest: Guest, floorMib: number): Promise<Row[]> {
  const rows: Row[] = [];
  for (const mib of SIZES_MIB) {
    await guest.hold(mib, mib);
    const samples = await sample(guest, MOVE_SECONDS);
    const last = samples.slice(-LAST_SAMPLES);
    const rest = median(last);
    const settled = samples.findIndex((_, n) =>
      samples.slice(n).every((one) => Math.abs(one - rest) <= WITHIN * rest),
    );
    rows.push({
      ...row(`${mib} MiB anonymous, from one minute to the next`, floorMib + mib, last),
      's to 10 %': ((settled * LOOK_MS) / 1000).toFixed(1),
      explorations: explored(last, floorMib + mib),
      'damaged pages': await guest.verify(),
    });
  }
  return rows;
}

async function withGuest<T>(act: (guest: Guest, floorMib: number) => Promise<T>): Promise<T> {
  const sized = contender === 'traditional, sized by the host';
  const daemon = await DaemonProcess.start({ config: CACHE_SOCKETS + (sized ? SIZED : '') });
  let guest: Guest | null = null;
  try {
    guest = await bootContender(contender, daemon, MEMORY_MIB, DISKS);
    const floorMib = guest.memfdAllocatedBytes() / MIB;
    if (!sized) {
      const module = await buildCacheModule();
      if (module === null)
        throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
      await loadCacheModule(guest, module);
      await daemon.ok('set', 'guest', '--cache-limit', `${MEMORY_MIB}M`);
    }
    return await act(guest, floorMib);
  } finally {
    await guest?.kill();
    await daemon.stop();
  }
}

const rows: Row[] = [];
if (parts.includes('both')) rows.push(await withGuest(both));
if (parts.includes('moves')) rows.push(...(await withGuest(moves)));
report('mixed', rows);
