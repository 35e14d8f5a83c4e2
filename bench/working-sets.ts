/**
 * A guest that works with so much anonymous memory while it reads a disk larger than its memory, once: what the host has
 * allocated to it meanwhile, and afterwards.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { DaemonProcess } from '../test/support/daemon.js';
import { cacheDevice, loadCacheModule } from '../test/support/lab/cache-module.js';
import { Guest } from '../test/support/lab/guest.js';
import { median } from './table.js';

export type Contender =
  'no balloon' | 'traditional, reporting' | 'traditional, sized by the host' | 'page cache';

export interface Measured {
  readonly workingSetMib: number;
  /** When nothing is read any more and the figure rests. */
  readonly settledMib: number;
  /** While the disk is read: of samples that begin when all memory was read once. */
  readonly streamMib: { readonly median: number; readonly least: number; readonly most: number };
  readonly streamMibPerSecond: number;
  /** Pages of the working set that were not as they were written. */
  readonly damagedPages: number;
}

export interface Run {
  readonly contender: Contender;
  /** What the kernel has touched when it is up: no balloon, no workload. */
  readonly floorMib: number;
  readonly points: readonly Measured[];
}

export interface RunOptions {
  readonly memoryMib: number;
  readonly workingSetsMib: readonly number[];
  /** Read for each working set; samples begin when so much was read. */
  readonly streamMib: number;
  readonly warmMib: number;
  /** Path of the guest's driver. */
  readonly module: string;
  /** Whether guests have the settings that come with the driver; default true. */
  readonly tuned?: boolean;
  /** Every sample, as it is taken. */
  readonly onSample?: (workingSetMib: number, streaming: boolean, hostMib: number) => void;
}

const MIB = 2 ** 20;
const DISK = '/dev/nvme0n1';
/** As fast as the host's disk would be; without it emulation sets the pace. */
const STREAM_MIB_PER_SECOND = 128;
const LOOK_MS = 500;
/** It rests when it changed by less than a hundredth in so many samples. */
const RESTING_SAMPLES = 8;
const SETTLE_SAMPLES_MAX = 120;
/** QEMU emulates the string instructions that these bits recommend ten times slower than the loops they replace. */
export const CPU = 'max,la57=off,erms=off,fsrm=off,fsrs=off';
const SETTINGS = join(import.meta.dirname, '../../guest/virtio_cache_balloon/virtio-cache-balloon.conf');
const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"

[[socket]]
path = "{folder}/cache.sock"
device = "cache-balloon"
`;
const SIZED = `
[policy]
mode = "auto"
reserve = "64M"

[[policy.band]]
name = "all"
min = "5%"
size = "working-set"
`;

export async function measure(contender: Contender, options: RunOptions): Promise<Run> {
  const { memoryMib, workingSetsMib, streamMib } = options;
  const sized = contender === 'traditional, sized by the host';
  const daemon = await DaemonProcess.start({ config: CONFIG + (sized ? SIZED : '') });
  let guest: Guest | null = null;
  try {
    const diskMib = streamMib * workingSetsMib.length;
    guest = await Guest.boot({
      name: 'guest',
      memoryMib,
      // An emulated controller that shares a line with others is not heard any more after many reads.
      acpi: true,
      sockets: {
        'no balloon': [],
        'traditional, reporting': [{ path: daemon.socketPath }],
        'traditional, sized by the host': [{ path: daemon.socketPath }],
        'page cache': [cacheDevice(join(daemon.folder, 'cache.sock'))],
      }[contender],
      extraArgs: [
        ...['-cpu', CPU],
        '-drive',
        `if=none,id=cold,driver=null-co,read-zeroes=on,size=${diskMib}M,throttling.bps-read=${STREAM_MIB_PER_SECOND * MIB}`,
        ...['-device', 'nvme,drive=cold,serial=cold'],
      ],
    });
    await guest.waitReady();
    // A guest that is sized by the host is one that nobody changed.
    if (options.tuned !== false && !sized) await applySettings(guest);
    const floorMib = guest.memfdAllocatedBytes() / MIB;
    // The page cache of a disk that nobody has open is dropped.
    await guest.sh(`sleep 1000000 <${DISK} >/dev/null 2>&1 &`);
    if (contender === 'page cache') {
      await loadCacheModule(guest, options.module);
      await daemon.ok('set', 'guest', '--cache-limit', `${memoryMib}M`);
    }
    const points: Measured[] = [];
    for (const [n, workingSetMib] of workingSetsMib.entries()) {
      points.push(await work(guest, options, workingSetMib, n * streamMib));
    }
    return { contender, floorMib, points };
  } finally {
    await guest?.kill();
    await daemon.stop();
  }
}

async function work(
  guest: Guest,
  { warmMib, streamMib, onSample }: RunOptions,
  workingSetMib: number,
  skipMib: number,
): Promise<Measured> {
  const host = (streaming: boolean): number => {
    const hostMib = guest.memfdAllocatedBytes() / MIB;
    onSample?.(workingSetMib, streaming, hostMib);
    return hostMib;
  };
  await guest.hold(workingSetMib, workingSetMib);
  const before = await readMib(guest);
  await guest.sh(
    `dd if=${DISK} of=/dev/null bs=1M skip=${skipMib} count=${streamMib} >/dev/null 2>&1 & echo $! >/dd.pid`,
  );
  const samples: number[] = [];
  let began: { ms: number; mib: number } | null = null;
  let streamMibPerSecond = 0;
  for (;;) {
    await pause(LOOK_MS);
    const hostMib = host(true);
    const mib = (await readMib(guest)) - before;
    if ((await guest.sh('kill -0 $(cat /dd.pid)')).code !== 0) break;
    if (mib < warmMib) continue;
    const ms = performance.now();
    began ??= { ms, mib };
    if (ms > began.ms) streamMibPerSecond = ((mib - began.mib) / (ms - began.ms)) * 1000;
    samples.push(hostMib);
  }
  const resting: number[] = [];
  for (let looks = 0; looks < SETTLE_SAMPLES_MAX; looks++) {
    await pause(LOOK_MS);
    resting.push(host(false));
    const last = resting.slice(-RESTING_SAMPLES);
    if (last.length === RESTING_SAMPLES && Math.max(...last) - Math.min(...last) < Math.max(...last) / 100)
      break;
  }
  return {
    workingSetMib,
    settledMib: median(resting.slice(-RESTING_SAMPLES)),
    streamMib: { median: median(samples), least: Math.min(...samples), most: Math.max(...samples) },
    streamMibPerSecond,
    damagedPages: await guest.verify(),
  };
}

async function applySettings(guest: Guest): Promise<void> {
  const { code, output } = await guest.sh(
    `cat >/settings <<'END'\n${readFileSync(SETTINGS, 'utf8')}END\nsysctl -p /settings`,
  );
  if (code !== 0) throw new Error(`sysctl: ${output}`);
}

/** Read from the disk since the guest is up. */
async function readMib(guest: Guest): Promise<number> {
  const { output } = await guest.sh('cat /sys/block/nvme0n1/stat');
  return (Number(output.trim().split(/\s+/)[2]) * 512) / MIB;
}
