/**
 * A guest that works with so much anonymous memory while it reads a disk larger than its memory, once: what the host has
 * allocated to it meanwhile, and afterwards. Or a guest that reads so much of the disk over and over (reread.ts).
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { DaemonProcess } from '../test/support/daemon.js';
import { bothLimits, CACHE_SOCKETS, loadCacheModule } from '../test/support/lab/cache-module.js';
import { Guest } from '../test/support/lab/guest.js';
import { SIZED } from '../test/support/sized.js';
import { DISK, LOOK_MS, readMib, rest, type Measured } from './host-samples.js';
import { reread } from './reread.js';
import { median } from './table.js';

export type Contender =
  | 'no balloon'
  | 'traditional, reporting'
  | 'traditional, sized by the host'
  | 'page cache'
  /** As VMs had it before one device had both limits. */
  | 'page cache, two devices';

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
  /** The working set is a part of the disk that is read over and over; default false. */
  readonly inPageCache?: boolean;
  /** Whether guests have the settings that come with the driver; default true. */
  readonly tuned?: boolean;
  /** Every sample, as it is taken. */
  readonly onSample?: (workingSetMib: number, streaming: boolean, hostMib: number) => void;
}

const MIB = 2 ** 20;
/** As fast as the host's disk would be; without it emulation sets the pace. */
const STREAM_MIB_PER_SECOND = 128;
/** QEMU emulates the string instructions that these bits recommend ten times slower than the loops they replace. */
export const CPU = 'max,la57=off,erms=off,fsrm=off,fsrs=off';
const SETTINGS = join(import.meta.dirname, '../../guest/virtio_balloon/virtio-balloon.conf');
export async function measure(contender: Contender, options: RunOptions): Promise<Run> {
  const { memoryMib, workingSetsMib, streamMib } = options;
  const sized = contender === 'traditional, sized by the host';
  const daemon = await DaemonProcess.start({ config: CACHE_SOCKETS + (sized ? SIZED : '') });
  let guest: Guest | null = null;
  try {
    const mib = Math.max(streamMib * workingSetsMib.length, 4 * memoryMib);
    const disk = { name: 'cold', mib, mibPerSecond: STREAM_MIB_PER_SECOND };
    guest = await bootContender(contender, daemon, memoryMib, [disk]);
    // A guest that is sized by the host is one that nobody changed.
    if (options.tuned !== false && !sized) await applySettings(guest);
    const floorMib = guest.memfdAllocatedBytes() / MIB;
    // The page cache of a disk that nobody has open is dropped.
    await guest.sh(`sleep 1000000 <${DISK} >/dev/null 2>&1 &`);
    if (contender === 'page cache' || contender === 'page cache, two devices') {
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

interface Disk {
  readonly name: string;
  readonly mib: number;
  readonly mibPerSecond: number;
}

/** Boots a guest with the contender's device and these disks, and waits until it is up. */
export async function bootContender(
  contender: Contender,
  daemon: DaemonProcess,
  memoryMib: number,
  disks: readonly Disk[],
): Promise<Guest> {
  const guest = await Guest.boot({
    name: 'guest',
    memoryMib,
    // An emulated controller that shares a line with others is not heard any more after many reads.
    acpi: true,
    sockets: {
      'no balloon': [],
      'traditional, reporting': [{ path: daemon.socketPath }],
      'traditional, sized by the host': [{ path: daemon.socketPath }],
      'page cache': bothLimits(daemon.folder, 1),
      'page cache, two devices': bothLimits(daemon.folder, 2),
    }[contender],
    extraArgs: [
      ...['-cpu', CPU],
      ...disks.flatMap(({ name, mib, mibPerSecond }) => [
        '-drive',
        `if=none,id=${name},driver=null-co,read-zeroes=on,size=${mib}M,throttling.bps-read=${mibPerSecond * MIB}`,
        ...['-device', `nvme,drive=${name},serial=${name}`],
      ]),
    ],
  });
  await guest.waitReady();
  return guest;
}

async function work(
  guest: Guest,
  { memoryMib, warmMib, streamMib, inPageCache, onSample }: RunOptions,
  workingSetMib: number,
  skipMib: number,
): Promise<Measured> {
  const host = (streaming: boolean): number => {
    const hostMib = guest.memfdAllocatedBytes() / MIB;
    onSample?.(workingSetMib, streaming, hostMib);
    return hostMib;
  };
  if (inPageCache === true) return reread(guest, memoryMib, workingSetMib, host);
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
  return {
    workingSetMib,
    settledMib: await rest(() => host(false)),
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
