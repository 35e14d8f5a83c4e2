/**
 * A gold guest takes 1 GiB on a host that is at its reserve, and three bronze guests have it free: the seconds until the host has its reserve
 * again, with balloond and with the rules of Proxmox VE and of MOM (src/simulate/baselines.ts). All govern the same guests, one after
 * the other, whose balloons are QEMU's own: balloond with its defaults, the others every 10 s, as they do by default, and with statistics
 * that are newer than theirs. The memory that is short is counted in the VMMs' own resident memory.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import { Guest } from '../test/support/lab/guest.js';
import { residentBytes } from '../test/support/mixed-fleet.js';
import { govern, governing, OTHERS_SECONDS, reading } from './other-rules.js';
import { median, report, type Row } from './table.js';

const MIB = 2 ** 20;
const GOLD = { name: 'gold', memoryMib: 2048 };
const BRONZE = [1, 2, 3].map((n) => ({ name: `bronze-${n}`, memoryMib: 1024 }));
/** A bronze guest touched so much, and has it free again. */
const TOUCHED_MIB = 850;
const GIVEN_MIB = 1024;
const MEMORY_MIB = 3800;
const RESERVE_SHARE = 0.2;
/** The host has its reserve when it lacks no more: Proxmox VE leaves a host alone that is 10 MiB from its goal. */
const NEAR_BYTES = 16 * MIB;
const LOOK_MS = 50;
const PATIENCE_MS = 400_000;

const POLICY = {
  memory: `${MEMORY_MIB}M`,
  reserve: `${100 * RESERVE_SHARE}%`,
  band: [
    { name: 'gold', match: ['gold'], min: '50%' },
    { name: 'bronze', match: ['bronze-*'], min: '10%' },
  ],
};
const CONTENDERS = ['balloond', 'Proxmox-style 80 % target', 'MOM-style host-free rules'] as const;
type Contender = (typeof CONTENDERS)[number];

const { rounds } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } }).values;
const sockets = mkdtempSync(join(tmpdir(), 'balloond-vms-'));
process.on('exit', () => rmSync(sockets, { recursive: true, force: true }));

const boot = (vm: { name: string; memoryMib: number }): Promise<Guest> =>
  Guest.boot({
    ...vm,
    share: false,
    extraArgs: [
      ...['-device', 'virtio-balloon-pci,id=balloon0'],
      ...['-qmp', `unix:${join(sockets, `${vm.name}.qmp`)},server=on,wait=off`],
    ],
  });

const guests = await Promise.all([GOLD, ...BRONZE].map(boot));
const [gold, ...bronze] = guests;
if (gold === undefined) throw new Error('no guest');
await Promise.all(guests.map((guest) => guest.waitReady()));
await gold.sh('mount -t ramfs ramfs /tmp');

const usedBytes = (): number => guests.reduce((sum, { pid }) => sum + residentBytes(pid), 0);
const lackingBytes = (): number => usedBytes() - (1 - RESERVE_SHARE) * MEMORY_MIB * MIB;
const balloon = (guest: Guest, value: number): Promise<unknown> => guest.qmp('balloon', { value });

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !(await condition()); await sleep(LOOK_MS))
    if (performance.now() > end) throw new Error(`never: ${what}`);
}

/** All balloons are empty, bronze guests have touched their memory, and what the gold guest had is not on the host. */
async function reset(): Promise<void> {
  await gold?.sh('rm -f /tmp/grown');
  const emptied = async (guest: Guest, bytes: number): Promise<void> => {
    await balloon(guest, bytes);
    const actual = async (): Promise<unknown> =>
      ((await guest.qmp('query-balloon')) as { actual: number }).actual;
    await until(async () => (await actual()) === bytes, `the balloon of ${guest.name}`);
  };
  if (gold !== undefined) await emptied(gold, (GOLD.memoryMib - 1792) * MIB);
  for (const guest of guests)
    await emptied(guest, (guest === gold ? GOLD.memoryMib : (BRONZE[0]?.memoryMib ?? 0)) * MIB);
  for (const guest of bronze) await guest.eat(TOUCHED_MIB);
}

interface Gift {
  readonly seconds: number;
  readonly grewSeconds: number;
  readonly grownMib: number;
  readonly bronzeGaveMib: number;
}

async function give(contender: Contender): Promise<Gift> {
  await reset();
  const ours = contender === 'balloond';
  const config = (ours ? governing : reading)(sockets, POLICY);
  const daemon = await DaemonProcess.start({ config });
  const over = new AbortController();
  try {
    for (const { name } of guests)
      await daemon.until(name, ({ state, stats }) => state === 'running' && stats !== null, 'it is adopted');
    // All have seen the host at rest: one that has memory to spare moves nothing.
    await sleep(3000);
    const governing = ours ? Promise.resolve() : govern(contender, daemon, POLICY, over.signal);
    await sleep((OTHERS_SECONDS * 1000) / 2);
    const grownMib = Math.round(GIVEN_MIB - lackingBytes() / MIB);
    const before = bronze.map(({ pid }) => residentBytes(pid));
    const begun = performance.now();
    const grew = gold?.sh(`dd if=/dev/zero of=/tmp/grown bs=1M count=${grownMib}`);
    await grew;
    const grewSeconds = (performance.now() - begun) / 1000;
    await until(() => lackingBytes() < NEAR_BYTES, `${contender} gives: ${lackingBytes() / MIB} MiB lack`);
    const seconds = (performance.now() - begun) / 1000;
    over.abort();
    await governing;
    const gave = bronze.map(({ pid }, row) => (before[row] ?? 0) - residentBytes(pid));
    const bronzeGaveMib = gave.reduce((sum, bytes) => sum + bytes, 0) / MIB;
    return { seconds, grewSeconds, grownMib, bronzeGaveMib };
  } finally {
    over.abort();
    await daemon.stop();
  }
}

const gifts: (Gift & { contender: Contender })[] = [];
try {
  for (let round = 0; round < Number(rounds); round++)
    for (const contender of CONTENDERS) {
      const gift = { contender, ...(await give(contender)) };
      console.error(JSON.stringify(gift));
      gifts.push(gift);
    }
} finally {
  await Promise.all(guests.map((guest) => guest.kill()));
}
const of = (contender: Contender, figure: keyof Gift): number[] =>
  gifts.filter((one) => one.contender === contender).map((gift) => gift[figure]);
const ours = median(of('balloond', 'seconds'));
const rows = CONTENDERS.map((contender): Row => ({
  rules: contender,
  'gold touches, s': of(contender, 'grewSeconds')
    .map((s) => s.toFixed(1))
    .join(', '),
  'bronze gave, MiB': of(contender, 'bronzeGaveMib')
    .map((mib) => mib.toFixed(0))
    .join(', '),
  'seconds, each round': of(contender, 'seconds')
    .map((s) => s.toFixed(1))
    .join(', '),
  'balloond takes, of it': (ours / median(of(contender, 'seconds'))).toFixed(2),
}));
report('give-gold', rows, gifts);
