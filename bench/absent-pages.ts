import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { findPresent } from '../src/memory/comparison.js';
import { Discarder } from '../src/memory/discard.js';
import { GuestMemory } from '../src/memory/guest-memory.js';
import { AbsentPages } from '../src/memory/absent-pages.js';
import { PAGE_BYTES, type GuestRegion } from '../src/memory/region.js';
import { createMemfd } from '../src/os/memfd.js';
import { readsAsZeros, type ResidentMethod } from '../src/os/resident.js';
import { median, report, type Row } from './table.js';

/**
 * What it costs to compare what was discarded with what the host has: for VMs of 4 GiB at rest with 2 GiB in the balloon, and
 * for one comparison of one VM by each way that the kernel offers. Looks come as fast as they can, and stand for one every 4 s.
 */
const { values: wanted } = parseArgs({ options: { vms: { type: 'string', default: '100' } } });
const VMS = Number(wanted.vms);
const MIB = 2 ** 20;
const VM_BYTES = 4 * 2 ** 30;
const BALLOON_PAGES = (2 * 2 ** 30) / PAGE_BYTES;
const LOOK_SECONDS = 4;
/** Ten minutes. */
const LOOKS = 150;
const TIMES = 5;
const DUMPED_MIB = 700;

/** Pages in a run of the balloon; behind each run a page that the guest holds, so that the file is in pieces, too. */
const PATTERNS = { 'one run': BALLOON_PAGES, 'runs of 2 MiB': 512, 'runs of 64 KiB': 16 } as const;

interface Vm {
  readonly memory: GuestMemory;
  readonly region: GuestRegion;
}

function makeVm(runPages: number): Vm {
  const memory = new GuestMemory();
  const description = { gpa: 0n, sizeBytes: BigInt(VM_BYTES), userAddr: 0n, mmapOffset: 0n };
  const region = memory.add(description, createMemfd('ram', VM_BYTES));
  let page = 0;
  for (let given = 0; given < BALLOON_PAGES; given += runPages) {
    region.ledger.inflateKept(page, runPages);
    page += runPages;
    region.mapping.write(page * PAGE_BYTES, Uint8Array.of(1), 0, 1);
    page++;
  }
  return { memory, region };
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Looks at all of them, and lets what comes of that come to its end. */
async function looks(all: readonly AbsentPages[], count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    for (const absentPages of all) absentPages.look();
    await pause(0);
  }
}

async function atRest(pattern: keyof typeof PATTERNS): Promise<Row> {
  const vms = Array.from({ length: VMS }, () => makeVm(PATTERNS[pattern]));
  const all = vms.map(({ memory }) => {
    const discarder = new Discarder(memory, { quietMs: 0, longestMs: 0 }, () => undefined);
    const [yes, no] = [() => true, () => false];
    const state = { running: yes, tellsFirst: yes, inhibited: no, moved: () => 1 };
    return new AbsentPages(memory, discarder, state);
  });
  await looks(all, 2);
  // Each is compared for the first time, in turns.
  while (all.some(({ refilledBytes }) => refilledBytes === null)) await pause(100);
  const before = cpuMs();
  await looks(all, LOOKS);
  await pause(2000);
  const ms = cpuMs() - before;
  for (const { memory } of vms) memory.close();
  return {
    VMs: VMS,
    balloon: pattern,
    'CPU ms in 10 minutes': ms.toFixed(0),
    '% of a core': (ms / (LOOKS * LOOK_SECONDS * 10)).toFixed(3),
  };
}

function compareMs({ memory }: Vm, method: ResidentMethod): number {
  const begun = performance.now();
  const steps = findPresent(memory, method);
  while (steps.next().done !== true);
  return performance.now() - begun;
}

function once(pattern: keyof typeof PATTERNS): Row {
  const vm = makeVm(PATTERNS[pattern]);
  const times = (method: ResidentMethod): string =>
    median(Array.from({ length: TIMES }, () => compareMs(vm, method))).toFixed(2);
  const row = { balloon: pattern, 'cachestat ms': times('cachestat'), 'mincore ms': times('mincore') };
  vm.memory.close();
  return row;
}

/** How long it takes to see that all of what a dump brought back is empty. */
function zeros(): Row {
  const { memory, region } = makeVm(BALLOON_PAGES);
  const pages = (DUMPED_MIB * MIB) / PAGE_BYTES;
  for (let page = 0; page < pages; page++) region.mapping.write(page * PAGE_BYTES, Uint8Array.of(0), 0, 1);
  const found = compareMs({ memory, region }, 'cachestat');
  const begun = performance.now();
  for (let mib = 0; mib < DUMPED_MIB; mib += 2) {
    if (!readsAsZeros(region.mapping, region.fd, mib * MIB, 2 * MIB)) throw new Error('it is empty');
  }
  const read = performance.now() - begun;
  memory.close();
  return {
    'came back MiB': DUMPED_MIB,
    'found in ms': found.toFixed(1),
    'seen to be empty in ms': read.toFixed(0),
  };
}

const patterns = Object.keys(PATTERNS) as (keyof typeof PATTERNS)[];
report('absent-pages-once', patterns.map(once));
report('absent-pages-zeros', [zeros()]);
const rows: Row[] = [];
for (const pattern of patterns) rows.push(await atRest(pattern));
report('absent-pages', rows);
