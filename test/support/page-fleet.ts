/** A fleet for the page with an hour behind it: VMs in three bands, two kinds, and each thing that can be said of one. */
import type { LiveTick, LiveVm } from '../../protocol/control/live.js';
import { SAMPLE_MS, samplesOf } from '../../protocol/control/live.js';
import { GIB, MemoryFleet, MemoryHistory } from './fleet.js';

const TICKS = 350;
const TOTAL_BYTES = 64 * GIB;

interface Model {
  readonly name: string;
  readonly band: string;
  readonly ramBytes: number;
  /** The part of its memory that it gives up at a moment of the hour, 0 to 1. */
  readonly gives: (moment: number) => number;
  readonly change?: Partial<LiveVm>;
}

const wave = (slow: number, low: number, high: number) => (moment: number) =>
  low + ((high - low) * (1 + Math.sin(moment * slow))) / 2;
const late = (from: number, to: number) => (moment: number) =>
  moment < from ? 0.05 : Math.min(to, 0.05 + (moment - from) * 3);

const MODELS: readonly Model[] = [
  { name: 'db-1', band: 'gold', ramBytes: 16 * GIB, gives: wave(3, 0.02, 0.08) },
  {
    name: 'db-2',
    band: 'gold',
    ramBytes: 8 * GIB,
    gives: wave(5, 0.1, 0.3),
    change: { workingSetBytes: 5 * GIB },
  },
  { name: 'web-1', band: 'silver', ramBytes: 4 * GIB, gives: late(0.5, 0.5), change: { mode: 'manual' } },
  { name: 'web-2', band: 'silver', ramBytes: 4 * GIB, gives: late(0.55, 0.4), change: { kind: 'qmp' } },
  {
    name: 'web-10',
    band: 'silver',
    ramBytes: 4 * GIB,
    gives: wave(9, 0.1, 0.2),
    change: { inhibited: 'backup' },
  },
  {
    name: 'build-7',
    band: 'bronze',
    ramBytes: 12 * GIB,
    gives: late(0.3, 0.7),
    change: {
      force: 'high',
      verdict:
        'the guest gives up no more (it holds 7.2 GiB of 8.4 GiB): set a smaller balloon, or look at the memory that its programs use',
    },
  },
  {
    name: 'build-8.a-rather-long-name.of-a-machine.example.org',
    band: 'bronze',
    ramBytes: 12 * GIB,
    gives: late(0.32, 0.75),
    change: { refilledBytes: 64 * 2 ** 20 },
  },
  {
    name: 'new',
    band: 'bronze',
    ramBytes: 2 * GIB,
    gives: () => 0,
    change: { state: 'connected', actualUnknown: true },
  },
];

function vmAt({ name, band, ramBytes, gives, change }: Model, moment: number): LiveVm {
  const actualBytes = Math.round(ramBytes * gives(moment));
  return {
    name,
    kind: 'vhost-user',
    state: 'running',
    band,
    mode: 'auto',
    force: 'none',
    inhibited: null,
    ramBytes,
    targetBytes: Math.round(ramBytes * Math.max(gives(moment), gives(moment + 0.02))),
    actualBytes,
    actualUnknown: false,
    cacheBytes: null,
    allocatedBytes: Math.round((ramBytes - actualBytes) * 0.9),
    availableBytes: Math.round((ramBytes - actualBytes) * 0.3),
    workingSetBytes: null,
    refilledBytes: 0,
    verdict: null,
    ...change,
  };
}

function tickAt(time: number, moment: number): LiveTick {
  const vms = MODELS.map((model) => vmAt(model, moment));
  const used = vms.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0);
  return {
    time,
    hostTotalBytes: TOTAL_BYTES,
    hostAvailableBytes: TOTAL_BYTES - used - 6 * GIB,
    policy: {
      mode: 'auto',
      paused: false,
      bands: ['gold', 'silver', 'bronze'],
      reserveBytes: 6.4 * GIB,
      part: null,
      pressurePercent: Math.max(0, Math.round(40 * Math.sin(moment * 7) - 20)),
    },
    vms,
  };
}

export class PageFleet extends MemoryFleet {
  override live(): LiveTick {
    return tickAt(Date.now(), 1);
  }
}

/** The hour before now. */
export function pageHistory(): MemoryHistory {
  const history = new MemoryHistory();
  const now = Date.now();
  for (let n = TICKS; n > 0; n--) {
    const time = now - n * SAMPLE_MS;
    history.add(time, samplesOf(tickAt(time, 1 - n / TICKS)));
  }
  return history;
}

/** The moments at which the policy did something, as parts of the hour, with the names of VMs. */
export const DEEDS = [
  [
    'policy-took',
    0.3,
    'build-7',
    'took 1.2 GiB from build-7 (bronze): host available 8 % < reserve 10 %; 40 % of its memory idle',
  ],
  [
    'policy-took',
    0.34,
    'build-8.a-rather-long-name.of-a-machine.example.org',
    'took 2 GiB from build-8 (bronze): host available 7 % < reserve 10 %',
  ],
  ['policy-gave', 0.45, 'db-1', 'gave 1 GiB to db-1 (gold): its guest is short'],
  ['policy-took', 0.55, 'web-2', 'took 512 MiB from web-2 (silver): host available 9 % < reserve 10 %'],
  ['policy-forced', 0.7, 'build-7', 'forced build-7 (bronze) to 4 GiB: it did not yield in 30 s'],
  ['policy-released', 0.8, 'build-7', 'released build-7 (bronze): it yielded'],
] as const;
