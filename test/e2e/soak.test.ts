// A Linux guest short of memory, whose balloon's target swings all the time while its kernel moves pages about, never
// reads anything but what it wrote. SOAK_SECONDS=N goes on for that long
// (and TAP_TIMEOUT=N still longer).
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { PATIENCE_MS } from '../support/deadline.js';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import type { Guest } from '../support/lab/guest.js';

const SECONDS = Number(process.env['SOAK_SECONDS'] ?? 6);
/** In turn. The short ones take back pages whose discard may still be on its way. */
const SWINGS_MS = [100, 100, 10, 10, 10, 10];
const SWING_BYTES = 24 * MIB;
const HELD_MIB = 160;
/** The kernel moves pages together, those of the balloon too, which inflates the new ones and deflates the old. */
const COMPACT = 'while :; do echo 1 >/proc/sys/vm/compact_memory; usleep 20000; done';

interface Span {
  least: number;
  most: number;
}

/** Between two targets, of which the larger is all that the guest can give. */
async function swing(control: ControlClient, largeBytes: number, isOver: () => boolean): Promise<Span> {
  const actualBytes = { least: Infinity, most: 0 };
  for (let n = 0; !isOver(); n++) {
    await control.setTarget('soak', { balloonBytes: largeBytes - (n % 2 === 0 ? SWING_BYTES : 0) });
    await sleep(SWINGS_MS[n % SWINGS_MS.length]);
    const { balloon } = await control.show('soak');
    actualBytes.least = Math.min(actualBytes.least, balloon.actualBytes);
    actualBytes.most = Math.max(actualBytes.most, balloon.actualBytes);
  }
  return actualBytes;
}

/**
 * Reads and writes what is held, and takes other memory for it again and again, until the time is up and the kernel has moved pages
 * of the balloon. Returns the pages that were lost.
 */
async function work(guest: Guest, end: number): Promise<number> {
  let lost = 0;
  for (let seed = 1, moved = 0; performance.now() < end || moved === 0; seed += 1000) {
    if (performance.now() > end + PATIENCE_MS)
      throw new Error('never: the kernel moved a page of the balloon');
    lost += await guest.renew(10, seed);
    lost += await guest.churn(500, seed);
    moved = await movedPages(guest);
  }
  return lost;
}

/** Counted by kernels that can move the balloon's pages (CONFIG_BALLOON_COMPACTION). */
async function movedPages(guest: Guest): Promise<number> {
  const { output } = await guest.sh('grep balloon_migrate /proc/vmstat');
  return Number(output.split(' ')[1]);
}

void t.test('what the guest wrote is there', async (t) => {
  // Without reporting, so that what comes back to the host is the balloon's doing.
  const daemon = await startDaemon(t, {
    config: `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ", "VIRTIO_BALLOON_F_DEFLATE_ON_OOM"]
`,
  });
  const control = new ControlClient(join(daemon.folder, 'control.sock'));
  // On one processor, pages that come back from the balloon are the next to be used.
  const guest = await boot(t, daemon, 'soak', { device: { numVqs: 3 } });
  await guest.hold(HELD_MIB, 1);
  const { MemAvailable = 0 } = await guest.meminfo();
  const largeBytes = Math.floor(MemAvailable / MIB) * MIB;
  t.ok(await guest.eat((largeBytes - SWING_BYTES) / MIB), 'all that the guest has is allocated');
  const fullBytes = guest.memfdAllocatedBytes();
  await daemon.ok('set', 'soak', '--balloon', `${largeBytes - SWING_BYTES}`, '--wait', '--timeout', '120');
  await daemon.until('soak', () => fullBytes - guest.memfdAllocatedBytes() > largeBytes / 2, 'much less is');

  t.equal((await guest.sh(`(${COMPACT}) >/dev/null 2>&1 &`)).code, 0);
  const before = (await control.show('soak')).balloon;
  const end = performance.now() + SECONDS * 1000;
  let isOver = false;
  const worked = work(guest, end).finally(() => (isOver = true));
  const [actualBytes, lost] = await Promise.all([swing(control, largeBytes, () => isOver), worked]);
  const after = (await control.show('soak')).balloon;
  t.equal(lost, 0, 'pages lost');
  t.equal(await guest.verify(), 0, 'pages lost in the end');
  t.ok(actualBytes.least < actualBytes.most, JSON.stringify(actualBytes));
  t.ok(
    Number(after.inflatedBytesTotal) > Number(before.inflatedBytesTotal),
    `${after.inflatedBytesTotal} inflated`,
  );
  t.ok(
    Number(after.deflatedBytesTotal) > Number(before.deflatedBytesTotal),
    `${after.deflatedBytesTotal} deflated`,
  );

  await daemon.ok('set', 'soak', '--balloon', '0', '--wait', '--timeout', '120');
  const lowBytes = guest.memfdAllocatedBytes();
  t.ok(await guest.eat((largeBytes - SWING_BYTES) / MIB));
  t.ok(guest.memfdAllocatedBytes() - lowBytes > largeBytes / 2, 'and is allocated again');
  t.equal(await guest.verify(), 0);
  t.equal((await control.show('soak')).verdict, null);
});
