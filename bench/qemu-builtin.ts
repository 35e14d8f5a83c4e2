import { PageRuns } from '../src/balloon/page-runs.js';
import { discardRanges } from '../src/os/discard.js';
import { allocatedBytes } from '../src/os/file.js';
import { Mapping } from '../src/os/mapping.js';
import { createMemfd } from '../src/os/memfd.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { ensureLab } from '../test/support/lab/lab.js';
import { kicks, patterns, PFNS_PER_KICK, type Pattern } from './patterns.js';
import { cpuSeconds } from './process-cost.js';
import { QtestMachine } from './qtest-machine.js';
import { percentile, report, type Row } from './table.js';

/**
 * QEMU's built-in balloon, balloond, and the same pages punched by a loop in C. Each gives up the same memory, 256
 * pages a kick, and the three take turns every few kicks, so that whatever else the machine does meets them all.
 * A kick counts until the device gave its buffer back; by the end the memory is really free, which is checked.
 */
const MEMORY_MIB = 640;
const BALLOON_MIB = 512;
const FIRST_PFN = (64 * 2 ** 20) / 4096;
const PAGES = (BALLOON_MIB * 2 ** 20) / 4096;
const ROUNDS = 3;
const KICKS_PER_TURN = 16;
const MIB_PER_KICK = (PFNS_PER_KICK * 4096) / 2 ** 20;
/** Rings and buffers come into being meanwhile. */
const SLACK_BYTES = 64 * 1024;

/** One way to give memory back: its memory, what a kick is, and whose CPU that takes. */
interface Contender {
  name: string;
  memory: Mapping;
  memoryFd: number;
  /** Resolves with the microseconds that it took. */
  kick(pfns: Uint8Array): number | Promise<number>;
  pids: readonly number[];
}

interface Figures {
  micros: number[];
  cpuSeconds: number;
}

function qemu(name: string, machine: QtestMachine, ...others: number[]): Contender {
  const { memory, memoryFd } = machine;
  return {
    name,
    memory,
    memoryFd,
    kick: (pfns) => machine.inflate(pfns),
    pids: [machine.qemu.pid ?? 0, ...others],
  };
}

/** The fewest ranges of a kick, handed to madvise(MADV_REMOVE) one by one in the native helper. */
function limit(): Contender {
  const bytes = MEMORY_MIB * 2 ** 20;
  const fd = createMemfd('limit', bytes);
  const memory = Mapping.map(fd, 0, bytes);
  const runs = new PageRuns();
  return {
    name: 'limit (C loop)',
    memory,
    memoryFd: fd,
    kick: (pfns) => {
      const ranges: number[] = [];
      runs.add(pfns);
      runs.drain((first, count) => ranges.push(first * 4096, count * 4096));
      const list = Float64Array.from(ranges);
      const start = process.hrtime.bigint();
      discardRanges(memory, fd, list, list.length / 2, 'madvise');
      return Number(process.hrtime.bigint() - start) / 1000;
    },
    pids: [],
  };
}

function populate({ memory }: Contender): void {
  const chunk = new Uint8Array(2 ** 20).fill(0xa5);
  for (let mib = 0; mib < BALLOON_MIB; mib++) {
    memory.write(FIRST_PFN * 4096 + mib * 2 ** 20, chunk, 0, chunk.length);
  }
}

async function race(contenders: readonly Contender[], pattern: Pattern): Promise<Figures[]> {
  const all = contenders.map((): Figures => ({ micros: [], cpuSeconds: 0 }));
  const buffers = [...kicks(pattern)];
  for (let round = 0; round < ROUNDS; round++) {
    contenders.forEach(populate);
    const before = contenders.map(({ memoryFd }) => allocatedBytes(memoryFd));
    for (let at = 0; at < buffers.length; at += KICKS_PER_TURN) {
      for (const [n, contender] of contenders.entries()) {
        const figures = all[n];
        if (figures === undefined) continue;
        const cpu = (): number => contender.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
        const cpuBefore = cpu();
        for (const buffer of buffers.slice(at, at + KICKS_PER_TURN)) {
          figures.micros.push(await contender.kick(buffer));
        }
        figures.cpuSeconds += cpu() - cpuBefore;
      }
    }
    contenders.forEach(({ name, memoryFd }, n) => {
      const freed = (before[n] ?? 0) - allocatedBytes(memoryFd);
      if (freed < BALLOON_MIB * 2 ** 20 - SLACK_BYTES) throw new Error(`${name} freed only ${freed} bytes`);
    });
  }
  return all;
}

function row(pattern: string, name: string, figures: Figures, builtin: number, bound: number): Row {
  const p50 = percentile(figures.micros, 50);
  const gib = (figures.micros.length * MIB_PER_KICK) / 1024;
  return {
    pattern,
    device: name,
    'kick to ack p50 µs': p50.toFixed(0),
    'p99 µs': percentile(figures.micros, 99).toFixed(0),
    'GiB/s at p50': ((MIB_PER_KICK / 1024 / p50) * 1e6).toFixed(2),
    'x built-in': (builtin / p50).toFixed(1),
    'of limit': (bound / p50).toFixed(2),
    'CPU s/GiB': figures.cpuSeconds === 0 ? '-' : (figures.cpuSeconds / gib).toFixed(2),
  };
}

const lab = await ensureLab();
const daemon = await DaemonProcess.start();
const start = (name: string, device: string[]): Promise<QtestMachine> =>
  QtestMachine.start({
    qemu: lab.qemu,
    device,
    memoryMib: MEMORY_MIB,
    qtestPath: `${daemon.folder}/${name}.qtest`,
  });
const builtin = await start('builtin', ['-device', 'virtio-balloon-device']);
const ours = await start('balloond', [
  ...['-chardev', `socket,id=balloon,path=${daemon.socketPath}`],
  ...['-device', 'vhost-user-test-device,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=256,config_size=16'],
]);
const contenders = [qemu('QEMU built-in', builtin), qemu('balloond', ours, daemon.pid), limit()];
const rows: Row[] = [];
try {
  for (const pattern of patterns(FIRST_PFN, PAGES)) {
    const figures = await race(contenders, pattern);
    const [theirs = 0, , bound = 0] = figures.map(({ micros }) => percentile(micros, 50));
    figures.forEach((each, n) => {
      rows.push(row(pattern.name, contenders[n]?.name ?? '', each, theirs, bound));
    });
  }
} finally {
  await builtin.close();
  await ours.close();
  await daemon.stop();
}
report('qemu-builtin', rows);
