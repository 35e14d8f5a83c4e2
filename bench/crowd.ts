import { parts, patterns, PFNS_PER_KICK } from './patterns.js';
import { play } from './player.js';
import { RawDriver } from './raw-driver.js';

/**
 * What buffers a VM gives up its memory in. `longest` are the longest that a balloon reads, of pages that lie
 * scattered, so that none of them merge, and each names all its pages eight times over.
 */
export type Load = 'sequential' | 'random' | 'longest';

export interface CrowdOptions {
  socketPath: string;
  vms: number;
  /** Memory that each VM has to give up. */
  mib: number;
  longest?: boolean;
  /** Buffers in a ring at a time (default 1, as Linux has it). */
  depth?: number;
}

// A type, since an interface is not a record of parts.
export type CrowdPart = {
  /** Seconds until all of them run. */
  connect: { ask: CrowdOptions; answer: number };
  populate: { ask: null; answer: null };
  /** Each VM gives up all it has; answered with the last ack. */
  inflate: { ask: { load: Load }; answer: null };
  /** Answered when the host has all of it back. */
  waitFree: { ask: null; answer: null };
  deflate: { ask: null; answer: null };
};

const CONNECTING_AT_ONCE = 8;
const LONGEST_PFNS = 8192;
const REPEATS = 8;

const vms: RawDriver[] = [];

async function connect(options: CrowdOptions): Promise<number> {
  const start = performance.now();
  const pfnsPerBuffer = options.longest === true ? LONGEST_PFNS : PFNS_PER_KICK;
  while (vms.length < options.vms) {
    const missing = Math.min(CONNECTING_AT_ONCE, options.vms - vms.length);
    const starting = Array.from({ length: missing }, () => RawDriver.start({ ...options, pfnsPerBuffer }));
    vms.push(...(await Promise.all(starting)));
  }
  return (performance.now() - start) / 1000;
}

function buffers({ firstPfn, pages }: RawDriver, load: Load): Uint32Array[] {
  const all = patterns(firstPfn, pages);
  if (load === 'sequential') return parts(all[0]?.pfns ?? new Uint32Array(), PFNS_PER_KICK);
  const random = all[2]?.pfns ?? new Uint32Array();
  if (load === 'random') return parts(random, PFNS_PER_KICK);
  const again = parts(random, LONGEST_PFNS);
  return Array.from({ length: REPEATS }, () => again).flat();
}

async function each(work: (vm: RawDriver) => Promise<void>): Promise<null> {
  await Promise.all(vms.map(work));
  return null;
}

play<CrowdPart>({
  connect,
  populate: () => {
    for (const vm of vms) vm.populate();
    return null;
  },
  inflate: ({ load }) => each((vm) => vm.inflating.tell(buffers(vm, load))),
  // One after another: a thousand that look all the time would keep those who discard from their cores.
  waitFree: async () => {
    for (const vm of vms) await vm.waitFree();
    return null;
  },
  deflate: () => each((vm) => vm.deflating.tell(buffers(vm, 'sequential'))),
});
