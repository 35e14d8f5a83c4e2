/** The law of working-set.ts in words. */
import { formatSize } from '../../protocol/control/size.js';
import type { Need, SizeState, SizeWhy } from './working-set.js';
import type { Missing, Signal } from './working-set-reading.js';
import { isKnown } from './working-set-stream.js';

const NEEDS: Readonly<Record<Need, string>> = {
  short: 'its guest has little memory available',
  took: 'its guest took memory out of the balloon by itself',
  stalled: 'its guest waited for memory',
  swaps: 'its guest reads from its swap',
  reads: 'its guest goes on reclaiming page cache',
};

/** The signals that stand in for the memory that the guest reclaims, in a sentence about the missing one. */
const INSTEAD: Readonly<Record<Signal, string | null>> = {
  reclaim: null,
  reads: 'the reads of its VMM stand in for it',
  faults: 'its major faults stand in for it',
  none: 'its page cache is left to it',
};

const MISSING: Readonly<Record<Missing, string>> = {
  available: 'its guest does not tell of available memory, so its free memory and page cache stand in for it',
  caches: 'its guest does not tell of page cache, so available memory that is not free stands in for it',
  'deflate-on-oom':
    'its driver gives no pages back when its guest runs out of memory, so more memory is left to the guest',
};

const BLIND = {
  statistics: 'its guest sends no statistics',
  free: 'its guest does not say how much of its memory is free',
} as const;

/** Why the target moved, as the end of a sentence. */
export function moveWords(why: SizeWhy): string {
  switch (why.kind) {
    case 'took-free':
      return 'this memory was free in its guest';
    case 'probes':
      return `its guest has page cache, of which ${formatSize(why.bytes)} are taken to see whether they are read again`;
    case 'hurt':
      return `its guest needs the page cache: a step of ${formatSize(why.bytes)} brought ${formatSize(why.broughtBytes)} of reading`;
    case 'gave':
      return NEEDS[why.need];
    case 'airs':
      return `its guest gets ${formatSize(why.bytes)} for some seconds, so that its driver reports the memory that is free`;
    case 'unanswered':
      return 'its guest sends no statistics any more, so the last step is given back';
    case 'refused':
      return `its guest does not give up ${formatSize(why.bytes)} more`;
    case 'blind':
      return `${BLIND[why.lacks]}, so the last step is given back`;
    case 'limit':
      return 'its min or max says so';
    case 'stream':
    case 'fits':
    case 'settled':
    case 'waits':
      return 'it follows its working set';
  }
}

/** Where the size of a VM stands: `sizeBytes` of memory are the guest's. */
export function standingWords(state: SizeState, why: SizeWhy, sizeBytes: number, nowSeconds: number): string {
  const size = formatSize(sizeBytes);
  if (why.kind === 'blind') return `its size stays at ${size}, because ${BLIND[why.lacks]}`;
  const where = {
    rest: 'at its working set',
    air: 'at its working set',
    probe: 'near its working set',
    grow: 'below its working set',
  };
  const { probedSeconds, probedBytes, broughtBytes } = state;
  const seconds = Math.max(0, Math.round(nowSeconds - probedSeconds));
  const parts = [
    `${where[state.phase]}: ${size}`,
    Number.isNaN(probedSeconds)
      ? ''
      : `probed ${seconds} s ago, a step of ${formatSize(probedBytes)} brought ${formatSize(broughtBytes)} of reading`,
    isKnown(state, nowSeconds) ? `beside a stream of ${formatSize(state.streamRate)} a second` : '',
  ];
  const instead = INSTEAD[state.signal];
  const missing = [
    ...(instead === null ? [] : [`its guest does not tell of reclaim, so ${instead}`]),
    ...state.missing.map((one) => MISSING[one]),
  ];
  return [parts.filter((part) => part !== '').join(', '), ...missing].join('; ');
}
