import { discardRanges } from '../src/os/discard.js';
import { PageRuns } from '../src/balloon/page-runs.js';
import { allocatedBytes } from '../src/os/file.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { ensureLab } from '../test/support/lab/lab.js';
import { kicks, patterns, type Pattern } from './patterns.js';
import { cpuSeconds } from './process-cost.js';
import { QtestMachine } from './qtest-machine.js';
import { median, percentile, report, type Row } from './table.js';

/**
 * QEMU's built-in balloon, balloond, and the same pages punched by a loop in C, in one run: seconds until the
 * device gave the last buffer back, at 256 pages a kick, with the guest memory really free by then.
 */
const MEMORY_MIB = 640;
const BALLOON_MIB = 512;
const FIRST_PFN = (64 * 2 ** 20) / 4096;
const ROUNDS = 3;
const PAGES = (BALLOON_MIB * 2 ** 20) / 4096;

interface Figure {
  gibPerSecond: number;
  p50: number;
  p99: number;
  cpuSecondsPerGib: number;
}

function populate(machine: QtestMachine): void {
  const chunk = new Uint8Array(2 ** 20).fill(0xa5);
  for (let mib = 0; mib < BALLOON_MIB; mib++) {
    machine.memory.write(FIRST_PFN * 4096 + mib * 2 ** 20, chunk, 0, chunk.length);
  }
}

async function timeDevice(machine: QtestMachine, pattern: Pattern, pids: number[]): Promise<Figure> {
  populate(machine);
  const before = allocatedBytes(machine.memoryFd);
  const cpu = (): number => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const cpuBefore = cpu();
  const micros: number[] = [];
  for (const buffer of kicks(pattern)) {
    const start = process.hrtime.bigint();
    await machine.inflate(buffer);
    micros.push(Number(process.hrtime.bigint() - start) / 1000);
  }
  const freed = before - allocatedBytes(machine.memoryFd);
  // The ring and the buffer of page frame numbers come into being meanwhile.
  if (freed < BALLOON_MIB * 2 ** 20 - 65536) throw new Error(`only ${freed} bytes were freed`);
  const seconds = micros.reduce((sum, value) => sum + value, 0) / 1e6;
  return {
    gibPerSecond: BALLOON_MIB / 1024 / seconds,
    p50: percentile(micros, 50),
    p99: percentile(micros, 99),
    cpuSecondsPerGib: (cpu() - cpuBefore) / (BALLOON_MIB / 1024),
  };
}

/** Kick by kick the fewest ranges, each handed to madvise(MADV_REMOVE) by the loop in the native helper. */
function timeLimit(machine: QtestMachine, pattern: Pattern): Figure {
  populate(machine);
  const batches = [...kicks(pattern)].map((buffer) => {
    const runs = new PageRuns();
    runs.add(buffer);
    const ranges: number[] = [];
    runs.drain((first, count) => ranges.push(first * 4096, count * 4096));
    return Float64Array.from(ranges);
  });
  const micros = batches.map((ranges) => {
    const start = process.hrtime.bigint();
    discardRanges(machine.memory, machine.memoryFd, ranges, ranges.length / 2, 'madvise');
    return Number(process.hrtime.bigint() - start) / 1000;
  });
  const seconds = micros.reduce((sum, value) => sum + value, 0) / 1e6;
  return {
    gibPerSecond: BALLOON_MIB / 1024 / seconds,
    p50: percentile(micros, 50),
    p99: percentile(micros, 99),
    cpuSecondsPerGib: seconds * (1024 / BALLOON_MIB),
  };
}

function combine(figures: Figure[]): Figure {
  const of = (key: keyof Figure): number => median(figures.map((figure) => figure[key]));
  return {
    gibPerSecond: of('gibPerSecond'),
    p50: of('p50'),
    p99: of('p99'),
    cpuSecondsPerGib: of('cpuSecondsPerGib'),
  };
}

function row(pattern: string, device: string, figure: Figure, builtin: Figure, limit: Figure): Row {
  return {
    pattern,
    device,
    'GiB/s': figure.gibPerSecond.toFixed(2),
    'kick to ack p50 µs': figure.p50.toFixed(0),
    'p99 µs': figure.p99.toFixed(0),
    'CPU s/GiB': figure.cpuSecondsPerGib.toFixed(2),
    'x built-in': (figure.gibPerSecond / builtin.gibPerSecond).toFixed(1),
    'of limit': (figure.gibPerSecond / limit.gibPerSecond).toFixed(2),
  };
}

async function main(): Promise<void> {
  const { qemu } = await ensureLab();
  const daemon = await DaemonProcess.start();
  const start = (name: string, device: string[]): Promise<QtestMachine> =>
    QtestMachine.start({ qemu, device, memoryMib: MEMORY_MIB, qtestPath: `${daemon.folder}/${name}.qtest` });
  const builtin = await start('builtin', ['-device', 'virtio-balloon-device']);
  const ours = await start('balloond', [
    ...['-chardev', `socket,id=balloon,path=${daemon.socketPath}`],
    ...['-device', 'vhost-user-test-device,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=256,config_size=16'],
  ]);
  const rows: Row[] = [];
  try {
    for (const pattern of patterns(FIRST_PFN, PAGES)) {
      const figures: Record<'builtin' | 'ours' | 'limit', Figure[]> = { builtin: [], ours: [], limit: [] };
      for (let round = 0; round < ROUNDS; round++) {
        figures.builtin.push(await timeDevice(builtin, pattern, [builtin.process.pid ?? 0]));
        figures.ours.push(await timeDevice(ours, pattern, [ours.process.pid ?? 0, daemon.pid]));
        figures.limit.push(timeLimit(builtin, pattern));
      }
      const [theirs, mine, limit] = [combine(figures.builtin), combine(figures.ours), combine(figures.limit)];
      rows.push(row(pattern.name, 'QEMU built-in', theirs, theirs, limit));
      rows.push(row(pattern.name, 'balloond', mine, theirs, limit));
      rows.push(row(pattern.name, 'limit (C loop)', limit, theirs, limit));
    }
  } finally {
    await builtin.close();
    await ours.close();
    await daemon.stop();
  }
  report('qemu-builtin', rows);
}

await main();
