/**
 * Eight small guests with three kinds of work on a host that has a part of the memory they want, by turns under several rules: the work
 * that is done, weighted by band, as a part of what the same guests do on a host with room, and programs and VMs that end for want of
 * memory. The VMs are real and have QEMU's own balloon, without `deflate-on-oom`, as QEMU and Proxmox VE start them. They are in a
 * memory cgroup of the size of that host: a VM that takes too much is ended by the kernel, but for contenders whose host has
 * swap in compressed memory, which is counted as memory of that host.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { BASELINES } from '../src/simulate/baselines.js';
import { Dice } from '../src/simulate/dice.js';
import { CompressedSwap } from '../test/support/compressed-swap.js';
import { DaemonProcess } from '../test/support/daemon.js';
import type { Guest } from '../test/support/lab/guest.js';
import { memfdAllocatedBytes } from '../test/support/lab/memfd-blocks.js';
import { MemoryGroup } from '../test/support/memory-group.js';
import { residentBytes } from '../test/support/mixed-fleet.js';
import { someOf } from './choice.js';
import { DISK } from './host-samples.js';
import { govern, governing, reading, type Policy } from './other-rules.js';
import { report } from './table.js';
import { bootWorker, inTree } from './worker.js';

const MIB = 2 ** 20;
const GUEST_MIB = 384;
const DISK_MIB_PER_SECOND = 16;
const LOOK_MS = 1000;
const SWAP_MIB = 4096;
/** Rules have so long to see what guests have had since they booted. */
const SETTLE_MS = 30_000;
/** A guest works, and rests, for between one and two of these. */
const PHASE_SECONDS = 20;

const TABLE = `create table notes(note text);
  insert into notes with recursive n(i) as (select 1 union all select i + 1 from n where i < 180000) select hex(randomblob(400)) from n;
  select sum(length(note)) from notes;`;

/** One unit of work, and the least time that it takes, which leaves the processors free. */
const KINDS = {
  /**
   * A table in anonymous memory, of 150 MiB when all of it is there, which compresses to half of that; 0 where the guest ended
   * the program for want of memory.
   */
  batch: {
    leastMs: 2000,
    unit: async (guest: Guest): Promise<number> => {
      const { code } = await guest.sh(inTree(`sqlite3 :memory: "${TABLE}"`), PATIENCE_MS);
      return code === 0 ? 1 : 0;
    },
  },
  /** Reads of files that fit into the page cache of a guest with all of its memory. */
  server: {
    leastMs: 250,
    unit: async (guest: Guest, n: number): Promise<number> => {
      const skip = (n * 7) % 22;
      await guest.sh(`dd if=${DISK} of=/dev/null bs=1M skip=${skip * 8} count=8 2>/dev/null`, PATIENCE_MS);
      return 1;
    },
  },
  build: {
    leastMs: 5000,
    unit: async (guest: Guest): Promise<number> => {
      const { code } = await guest.sh(inTree('cd /work && gcc -O1 -c -o /tmp/gun.o gun.c'), PATIENCE_MS);
      return code === 0 ? 1 : 0;
    },
  },
} as const;
type Kind = keyof typeof KINDS;
const PATIENCE_MS = 600_000;

const BANDS = {
  gold: { min: '50%', weight: 4 },
  silver: { min: '25%', weight: 2 },
  bronze: { min: '15%', weight: 1 },
};
type Band = keyof typeof BANDS;

const FLEET = (
  [
    ['gold', 'server'],
    ['gold', 'batch'],
    ['silver', 'build'],
    ['silver', 'server'],
    ['silver', 'batch'],
    ['bronze', 'build'],
    ['bronze', 'server'],
    ['bronze', 'batch'],
  ] as const satisfies [Band, Kind][]
).map(([band, kind]) => ({ band, kind, name: `${band}-${kind}` }));

const { seconds, memory, seed, only } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    memory: { type: 'string', default: '2000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
}).values;
const SECONDS = Number(seconds);
const MEMORY_MIB = Number(memory);

const policy = (size: 'on-demand' | 'working-set'): Policy => ({
  memory: `${MEMORY_MIB}M`,
  reserve: '20%',
  band: Object.entries(BANDS).map(([name, band]) => ({ name, match: [`${name}-*`], size, ...band })),
});

interface Rules {
  readonly words: string;
  /** Who moves the balloons. */
  readonly by?: keyof typeof BASELINES | 'on-demand' | 'working-set';
  /** The host has swap to zram. */
  readonly swaps?: true;
}

/** `room` is what the others are compared with. */
const CONTENDERS = {
  room: { words: 'a host with room' },
  reporting: { words: 'free page reporting alone' },
  swap: { words: 'free page reporting, and swap to zram on the host', swaps: true },
  static: { words: 'the same part of its RAM for each', by: 'static limits' },
  proxmox: { words: 'rules of Proxmox VE', by: 'Proxmox-style 80 % target' },
  mom: { words: 'rules of MOM', by: 'MOM-style host-free rules' },
  'on-demand': { words: 'balloond, on-demand', by: 'on-demand' },
  'working-set': { words: 'balloond, working-set', by: 'working-set' },
  'on-demand-swap': {
    words: 'balloond, on-demand, and swap to zram on the host',
    by: 'on-demand',
    swaps: true,
  },
  'working-set-swap': {
    words: 'balloond, working-set, and swap to zram on the host',
    by: 'working-set',
    swaps: true,
  },
} as const satisfies Record<string, Rules>;
type Contender = keyof typeof CONTENDERS;

interface Worked {
  readonly name: string;
  readonly band: Band;
  readonly kind: Kind;
  units: number;
  /** Programs that the guest ended. */
  killed: number;
  /** The kernel of the host ended the VM, or that of the guest panicked. */
  ended: boolean;
}

interface Run {
  readonly contender: Contender;
  readonly guests: readonly Worked[];
  readonly usedMib: readonly number[];
  /** The most that the VMMs had beside the memory of the guests. */
  readonly vmmsMib: number;
}

async function works(guest: Guest, row: number, worked: Worked): Promise<void> {
  const dice = new Dice(Number(seed) * 1000 + row);
  const { unit, leastMs } = KINDS[worked.kind];
  const end = performance.now() + SECONDS * 1000;
  const left = (): number => Math.max(0, end - performance.now());
  for (let busy = dice.next() < 0.5; left() > 0; busy = !busy) {
    const phaseMs = Math.min(left(), PHASE_SECONDS * 1000 * (1 + dice.next()));
    const phaseEnd = performance.now() + phaseMs;
    if (!busy) await sleep(phaseMs);
    for (let n = 0; busy && performance.now() < phaseEnd; n++) {
      const working = unit(guest, n);
      // A guest that is too small to work may be gone before it answers.
      working.catch(() => undefined);
      const [done] = await Promise.all([Promise.race([working, sleep(left(), null)]), sleep(leastMs)]);
      if (done === null) return;
      worked.units += done;
      worked.killed += 1 - done;
    }
  }
}

/** Runs the fleet under these rules; VMMs have so much memory of their own, as far as that is known. */
async function run(contender: Contender, knownVmmsMib = 0): Promise<Run> {
  const sockets = mkdtempSync(join(tmpdir(), 'balloond-vms-'));
  const group = new MemoryGroup();
  const boot = (name: string): Promise<Guest> =>
    bootWorker({
      name,
      memoryMib: GUEST_MIB,
      diskMibPerSecond: DISK_MIB_PER_SECOND,
      extraArgs: [
        ...['-device', 'virtio-balloon-pci,id=balloon0,free-page-reporting=on'],
        ...['-qmp', `unix:${join(sockets, `${name}.qmp`)},server=on,wait=off`],
      ],
    });
  const guests = await group.around(() =>
    Promise.all(
      FLEET.map(async (member, row) => {
        const worked: Worked = { ...member, units: 0, killed: 0, ended: false };
        return { guest: await boot(member.name), worked, row };
      }),
    ),
  );
  const { by, swaps }: Rules = CONTENDERS[contender];
  const over = new AbortController();
  const swap = swaps === true ? await CompressedSwap.on(SWAP_MIB * MIB) : null;
  let daemon: DaemonProcess | null = null;
  let governed: Promise<void> = Promise.resolve();
  try {
    if (by !== undefined) {
      const ours = by === 'on-demand' || by === 'working-set';
      // Limits that never change need no reserve, and whoever sets them knows the VMMs.
      const fixed = { memory: `${Math.floor(MEMORY_MIB - knownVmmsMib)}M`, reserve: '1%' };
      const wanted = { ...policy(ours ? by : 'on-demand'), ...(by === 'static limits' ? fixed : {}) };
      daemon = await DaemonProcess.start({ config: (ours ? governing : reading)(sockets, wanted) });
      for (const { name } of FLEET) await daemon.until(name, ({ stats }) => stats !== null, 'it is adopted');
      await sleep(2 * LOOK_MS);
      if (!ours) governed = govern(by, daemon, wanted, over.signal);
    }
    await sleep(SETTLE_MS);
    // What is in the swap takes memory of the host, too, which belongs to no cgroup.
    const limit = (): void => group.limit(MEMORY_MIB * MIB - (swap?.usedBytes() ?? 0));
    if (contender !== 'room') limit();
    const usedMib: number[] = [];
    let vmmsMib = 0;
    const looking = setInterval(() => {
      if (swap !== null) limit();
      const alive = guests.filter(({ worked }) => !worked.ended);
      const swapped = swap?.usedBytes() ?? 0;
      const own = ({ guest: { pid } }: (typeof alive)[number]): number =>
        residentBytes(pid) - memfdAllocatedBytes(pid);
      vmmsMib = Math.max(vmmsMib, alive.reduce((sum, one) => sum + (own(one) || 0), 0) / MIB);
      usedMib.push(alive.reduce((sum, { guest }) => sum + (residentBytes(guest.pid) || 0), swapped) / MIB);
    }, LOOK_MS);
    await Promise.all(
      guests.map(async ({ guest, worked, row }) => {
        const ended = guest.exitCode.then(() => (worked.ended = true));
        const working = works(guest, row, worked).catch(async (error: unknown) => {
          if (!(await Promise.race([ended, sleep(LOOK_MS, false)]))) throw error;
        });
        await Promise.race([working, ended]);
      }),
    );
    clearInterval(looking);
    return { contender, guests: guests.map(({ worked }) => ({ ...worked })), usedMib, vmmsMib };
  } finally {
    over.abort();
    await governed;
    await Promise.all(guests.map(({ guest }) => guest.kill()));
    await daemon?.stop();
    swap?.off();
    group.remove();
    rmSync(sockets, { recursive: true, force: true });
  }
}

const NAMES = Object.keys(CONTENDERS) as Contender[];
const chosen = someOf('--only', NAMES, only);
const wanted = NAMES.filter(
  (name) =>
    (name === 'room' || chosen.includes(name)) && (!('swaps' in CONTENDERS[name]) || CompressedSwap.exists()),
);
const runs: Run[] = [];
for (const contender of wanted) {
  runs.push(await run(contender, runs[0]?.vmmsMib));
  process.stderr.write(`${JSON.stringify(runs.at(-1))}\n`);
}

/** Of the work that the guest does on a host with room. */
function part({ name, units }: Worked): number {
  const most = runs[0]?.guests.find((one) => one.name === name)?.units ?? 0;
  return most === 0 ? 1 : units / most;
}

function weighted(guests: readonly Worked[]): number {
  const sum = (of: (one: Worked) => number): number => guests.reduce((all, one) => all + of(one), 0);
  return sum((one) => BANDS[one.band].weight * part(one)) / sum(({ band }) => BANDS[band].weight);
}

report(
  'fleet',
  runs.map(({ contender, guests, usedMib }) => ({
    rules: CONTENDERS[contender].words,
    'weighted work': weighted(guests).toFixed(2),
    ...Object.fromEntries(
      (Object.keys(BANDS) as Band[]).map((band) => [
        band,
        weighted(guests.filter((one) => one.band === band)).toFixed(2),
      ]),
    ),
    'programs ended in guests': guests.reduce((sum, { killed }) => sum + killed, 0),
    'VMs ended': guests.filter(({ ended }) => ended).length,
    'MiB on the host, most': Math.max(...usedMib).toFixed(0),
  })),
  runs,
);
