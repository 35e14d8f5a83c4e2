/** What libvirt says of a domain (formatdomain.html), as far as its balloon is concerned, and the numbers of libvirt's interface. */
import type { VmmStats } from '../adopted.js';
import { STAT_NAMES } from '../virtio/balloon.js';
import { elementAt, parseXml } from './xml.js';

export interface DomainWords {
  readonly name: string;
  readonly uuid: string;
  /** QEMU's own balloon; null: the domain has none. */
  readonly balloon: { readonly deflatesOnOom: boolean; readonly periodSeconds: number } | null;
  /** Memory of virtio-mem, whose size libvirt counts with that of the balloon. */
  readonly hasVirtioMem: boolean;
}

/** Throws XmlError. */
export function domainWords(xml: string): DomainWords {
  const domain = parseXml(xml);
  const textOf = (name: string): string => elementAt(domain, name)?.text.trim() ?? '';
  const devices = elementAt(domain, 'devices');
  const balloon = devices === undefined ? undefined : elementAt(devices, 'memballoon');
  const model = balloon?.attributes.get('model') ?? 'none';
  const period = balloon === undefined ? undefined : elementAt(balloon, 'stats')?.attributes.get('period');
  return {
    name: textOf('name'),
    uuid: textOf('uuid'),
    balloon: model.startsWith('virtio')
      ? {
          deflatesOnOom: balloon?.attributes.get('autodeflate') === 'on',
          periodSeconds: Math.max(0, Math.trunc(Number(period ?? 0)) || 0),
        }
      : null,
    hasVirtioMem: (devices?.children ?? []).some(
      ({ name, attributes }) => name === 'memory' && attributes.get('model') === 'virtio-mem',
    ),
  };
}

/** libvirt's sizes are in this unit. */
export const KIB = 1024;
/** Flags and kinds of libvirt's interface (libvirt-domain.h). */
export const LIST_ACTIVE = 1;
export const AFFECT_LIVE = 1;
export const STATS_STATE = 1;
export const STATS_BALLOON = 4;
/** A domain of these states executes: running, and blocked by its devices. */
const RUNNING_STATES: readonly number[] = [1, 2];

/** Events of a domain's life. */
export const DomainEvent = {
  STARTED: 2,
  SUSPENDED: 3,
  RESUMED: 4,
  STOPPED: 5,
  PMSUSPENDED: 7,
  CRASHED: 8,
} as const;

/** After these, a domain that is known may execute or not: STARTED also says that its guest woke (libvirt, qemuProcessHandleWakeup). */
export const STATE_EVENTS: readonly number[] = [
  DomainEvent.STARTED,
  DomainEvent.SUSPENDED,
  DomainEvent.RESUMED,
  DomainEvent.PMSUSPENDED,
];

/** Why a domain stopped, by the detail of that event. */
const STOPPED_WORDS: readonly string[] = [
  'the domain was shut down',
  'the domain was destroyed',
  'the domain crashed',
  'the domain was migrated to another host',
  'the domain was saved',
  'the domain failed',
  'the domain was replaced by a snapshot',
];

/** A sentence on the end of a domain. */
export function stoppedWords(detail: number): string {
  return STOPPED_WORDS[detail] ?? 'the domain ended';
}

interface Figure {
  /** The tag of virDomainMemoryStats, and the end of the name of the same in virConnectGetAllDomainStats. */
  readonly tag: number;
  readonly name: string;
  /** The number of the statistic in virtio, and its unit. */
  readonly stat: keyof typeof STAT_NAMES & number;
  readonly unit: number;
}

const FIGURES: readonly Figure[] = [
  { tag: 0, name: 'swap_in', stat: 0, unit: KIB },
  { tag: 1, name: 'swap_out', stat: 1, unit: KIB },
  { tag: 2, name: 'major_fault', stat: 2, unit: 1 },
  { tag: 3, name: 'minor_fault', stat: 3, unit: 1 },
  { tag: 4, name: 'unused', stat: 4, unit: KIB },
  { tag: 5, name: 'available', stat: 5, unit: KIB },
  { tag: 8, name: 'usable', stat: 6, unit: KIB },
  { tag: 10, name: 'disk_caches', stat: 7, unit: KIB },
  { tag: 11, name: 'hugetlb_pgalloc', stat: 8, unit: 1 },
  { tag: 12, name: 'hugetlb_pgfail', stat: 9, unit: 1 },
];
const ACTUAL = 6;
const LAST_UPDATE = 9;

export interface DomainMemory {
  /** The memory that the guest has, without its balloon, in bytes; null: libvirt does not say. */
  readonly guestBytes: number | null;
  readonly stats: VmmStats;
}

/** Decodes what MemoryStats returned, of the type `a{it}`. */
export function decodeMemoryStats(value: unknown): DomainMemory {
  const counts = countsOf(value);
  return memoryOf((tag) => counts.get(tag), counts.get(ACTUAL));
}

interface DomainLook extends DomainMemory {
  readonly ramBytes: number | null;
  readonly vmRuns: boolean;
}

/** Decodes what GetStats returned of a domain's state and balloon, of the type `a{sv}`. */
export function decodeDomainStats(value: unknown): DomainLook {
  const counts = countsOf(value);
  const maximum = counts.get('balloon.maximum');
  const memory = memoryOf(
    (tag, name) => counts.get(tag === LAST_UPDATE ? 'balloon.last-update' : `balloon.${name}`),
    counts.get('balloon.current'),
  );
  return {
    ...memory,
    ramBytes: maximum === undefined ? null : maximum * KIB,
    vmRuns: RUNNING_STATES.includes(counts.get('state.state') ?? 0),
  };
}

function memoryOf(
  countOf: (tag: number, name: string) => number | undefined,
  actual: number | undefined,
): DomainMemory {
  const values = FIGURES.flatMap(({ tag, name, stat, unit }): [string, number][] => {
    const count = countOf(tag, name);
    const known = STAT_NAMES[stat];
    return count === undefined || known === undefined ? [] : [[known, count * unit]];
  });
  return {
    guestBytes: actual === undefined ? null : actual * KIB,
    stats: { values: new Map(values), sentAtSeconds: countOf(LAST_UPDATE, '') ?? 0 },
  };
}

/** Of a dictionary, the counts that can be true. */
function countsOf(value: unknown): ReadonlyMap<unknown, number> {
  const entries = Array.isArray(value) ? (value as unknown[]) : [];
  return new Map(
    entries.flatMap((entry): [unknown, number][] => {
      const [key, count] = Array.isArray(entry) ? (entry as unknown[]) : [];
      return typeof count === 'number' && Number.isSafeInteger(count) && count >= 0 ? [[key, count]] : [];
    }),
  );
}
