/**
 * The device side of VIRTIO_CACHE_BALLOON_F_RANGES: one buffer of 256 blocks of 2 MiB, all there as huge pages of shmem,
 * from the notification until the buffer is back and the file has lost the blocks. No guest and no VMM is in the way.
 */
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { DaemonProcess } from '../test/support/daemon.js';
import { CACHE_CONFIG_BYTES, CacheDriver, type Block } from '../test/support/cache-driver.js';
import { Frontend } from '../test/support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../test/support/guest-ram.js';
import { ANY_VMM } from '../test/support/vmm-orders.js';
import { HostSettings } from './host-settings.js';
import { hugePageCounters } from './huge-page-counters.js';
import { onlyRun } from './only-run.js';
import { median, report } from './table.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Of the mount that memfds are files of; sizes inherit it. */
const SHMEM_ENABLED = '/sys/kernel/mm/transparent_hugepage/shmem_enabled';
const HUGE_PAGE_BYTES = 2 * MIB;
const BLOCKS = 256;
const ORDER = 9;
const ROUNDS = 11;
/** Behind the rings. */
const FIRST = 32 * MIB;
const FILL = new Uint8Array(HUGE_PAGE_BYTES).fill(0xa5);
const CONFIG = `[[socket]]
path = "{folder}/cache.sock"
device = "cache-balloon"
`;

const release = await onlyRun();
const settings = new HostSettings();
settings.set(SHMEM_ENABLED, 'always');
const daemon = await DaemonProcess.start({ config: CONFIG });
const ram = new GuestRam([{ gpa: 0, lenBytes: FIRST + BLOCKS * HUGE_PAGE_BYTES }]);
const frontend = new Frontend({
  order: ANY_VMM,
  socket: join(daemon.folder, 'cache.sock'),
  ram,
  queueCount: 2,
  configBytes: CACHE_CONFIG_BYTES,
});
const blocks: Block[] = Array.from({ length: BLOCKS }, (_, n) => ({
  pfn: (FIRST + n * HUGE_PAGE_BYTES) / PAGE_BYTES,
  order: ORDER,
}));
const bytes = BLOCKS * HUGE_PAGE_BYTES;
const rounds: { ms: number; made: number; split: number }[] = [];
try {
  await frontend.connect();
  const driver = await CacheDriver.start(frontend);
  const { fd } = ram.find(FIRST, bytes).file;
  for (let round = 0; round < ROUNDS; round++) {
    const before = hugePageCounters();
    // Through the file, so that no page table but a VMM's, which there is not, has to forget them.
    for (const { pfn } of blocks) writeSync(fd, FILL, 0, FILL.length, pfn * PAGE_BYTES);
    const filled = hugePageCounters();
    const presentBytes = ram.allocatedBytes();
    const start = performance.now();
    await driver.add(blocks);
    const ms = performance.now() - start;
    const left = ram.allocatedBytes();
    if (presentBytes - left < bytes) throw new Error(`${presentBytes - left} bytes of ${bytes} were freed`);
    rounds.push({ ms, made: filled.made - before.made, split: hugePageCounters().split - filled.split });
    await driver.reclaimed(blocks);
  }
} finally {
  frontend.close();
  await daemon.stop();
  settings.restore();
  release();
}
const gibPerSecond = rounds.map(({ ms }) => bytes / GIB / (ms / 1000));
report(
  'cache-notify',
  [
    {
      buffer: `${BLOCKS} x 2 MiB`,
      'GiB/s, median (least..most)': `${median(gibPerSecond).toFixed(0)} (${Math.min(...gibPerSecond).toFixed(0)}..${Math.max(...gibPerSecond).toFixed(0)})`,
      'ms to the ack': median(rounds.map(({ ms }) => ms)).toFixed(2),
      'huge pages made': median(rounds.map(({ made }) => made)),
      split: median(rounds.map(({ split }) => split)),
    },
  ],
  rounds,
);
