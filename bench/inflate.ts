import type { Lab } from '../test/support/lab/lab.js';
import { createMemfd } from '../src/os/memfd.js';
import { BACKINGS, type Backing } from './backings.js';
import { LimitContender, type Contender } from './contenders.js';
import { HostSettings, RefusedError } from './host-settings.js';
import { onlyRun } from './only-run.js';
import { PFN_PAGE_BYTES, patterns, PFNS_PER_KICK } from './patterns.js';
import { QtestMachine } from './qtest-machine.js';
import { race, type Entry } from './race.js';
import { median } from './table.js';

/** What the benchmarks of inflating have in common: how much is given up, in which orders, and how often. */
const MIB = 2 ** 20;
const FIRST_MIB = 16;
const BALLOON_MIB = 256;
const MEMORY_MIB = FIRST_MIB + BALLOON_MIB;
const HUGE_PAGE_MIB = 2;
const ROUNDS = 5;

export const BUILTIN = 'QEMU built-in';
export const LIMIT = 'limit';
export const LIMIT_MERGED = 'limit, merged';

/** Brings a contender to its start on a backing; `machine` starts a QEMU with these arguments for devices. */
export type Starter = (
  machine: (...device: string[]) => Promise<QtestMachine>,
  backing: Backing,
) => Promise<Contender>;

/** What came of one pattern on one backing. */
export interface Outcome {
  readonly backing: string;
  readonly pattern: string;
  readonly givenBytes: number;
  readonly entries: readonly Entry[];
}

/** What this host refuses, and why. */
export interface Refusal {
  readonly backing: string;
  readonly refused: string;
}

/** What no host can beat kick by kick, and what it could if it knew all that is to come. */
export const limits: readonly Starter[] = [
  limit(LIMIT, PFNS_PER_KICK),
  limit(LIMIT_MERGED, Number.MAX_SAFE_INTEGER),
];

function limit(name: string, pfnsPerCall: number): Starter {
  return async (machine, { pageBytes }) =>
    new LimitContender(name, await machine(), {
      memoryBytes: MEMORY_MIB * MIB,
      backingPageBytes: pageBytes,
      pfnsPerCall,
    });
}

export async function measure(
  { qemu }: Lab,
  starters: readonly Starter[],
  wanted: { backing: string; pattern: string; filledHere?: boolean },
): Promise<(Outcome | Refusal)[]> {
  const release = await onlyRun();
  const outcomes: (Outcome | Refusal)[] = [];
  for (const backing of BACKINGS.filter(({ name }) => name.includes(wanted.backing))) {
    const settings = new HostSettings();
    const contenders: Contender[] = [];
    try {
      backing.prepare(settings, starters.length * MEMORY_MIB * MIB);
      for (const start of starters) {
        const machine = (...device: string[]): Promise<QtestMachine> =>
          QtestMachine.start({
            qemu,
            memoryMib: MEMORY_MIB,
            memoryFd: memoryFile(backing),
            device,
            filledHere: wanted.filledHere === true,
          });
        contenders.push(await start(machine, backing));
      }
      const orders = patterns((FIRST_MIB * MIB) / PFN_PAGE_BYTES, (BALLOON_MIB * MIB) / PFN_PAGE_BYTES);
      for (const pattern of orders.filter(({ name }) => name.includes(wanted.pattern))) {
        const entries = await race(contenders, pattern, ROUNDS);
        const made = median(entries.flatMap(({ rounds }) => rounds.map((round) => round.hugePagesMade)));
        // The kernel may have none to give, and says nothing.
        if (backing.transparentHugePages && made < 0.9 * (BALLOON_MIB / HUGE_PAGE_MIB)) {
          const refused = `${pattern.name}, the host made only ${made} huge pages for ${BALLOON_MIB} MiB`;
          outcomes.push({ backing: backing.name, refused });
          continue;
        }
        outcomes.push({
          backing: backing.name,
          pattern: pattern.name,
          givenBytes: BALLOON_MIB * MIB,
          entries,
        });
      }
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      outcomes.push({ backing: backing.name, refused: error.message });
    } finally {
      for (const contender of contenders) await contender.close();
      settings.restore();
    }
  }
  release();
  return outcomes;
}

function memoryFile({ pageBytes }: Backing): number {
  return createMemfd(
    'guest',
    MEMORY_MIB * MIB,
    pageBytes > PFN_PAGE_BYTES ? { hugePageBytes: pageBytes } : {},
  );
}
