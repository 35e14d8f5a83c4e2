import { refusal, type RefusalText } from '../../protocol/control/refusal.js';
import { Type, type Static } from '../../protocol/json-schema.js';
import { formatSize, lackedUnit, parseSize, SIZE_FORMS } from '../../protocol/control/size.js';
import type { Band, PolicyConfig, StockKind } from './inputs.js';
import { commonName, globMatches } from './glob.js';

export type PolicyMode = 'observe' | 'auto' | 'off';
/** Whether a balloon grows when the host needs memory, or follows the working set of its guest at all times. */
type Size = 'on-demand' | 'working-set';

const SIZE_PATTERN = '\\d+ ?[Bb]?|\\d+(\\.\\d+)? ?[KMGTkmgt]([Ii][Bb])?';
const PERCENT_PATTERN = '0*(100(\\.0+)?|\\d{1,2}(\\.\\d+)?) ?%';
const NAME_PATTERN = Type.String({ minLength: 1, pattern: '^[^\\u0000]*$' });
export const AMOUNT = Type.String({
  pattern: `^\\s*(${PERCENT_PATTERN}|${SIZE_PATTERN})\\s*$`,
  title: `a percentage such as "25%", or a size (${SIZE_FORMS})`,
});
const SIZE = Type.String({ pattern: `^\\s*(${SIZE_PATTERN})\\s*$`, title: `a size (${SIZE_FORMS})` });
const RAMP = Type.String({
  pattern: `^\\s*${PERCENT_PATTERN}\\s*$`,
  title: 'a percentage of RAM a second, such as "1%"',
});
/** What a VM may override of its band. */
export const VM_POLICY = {
  min: Type.Optional(AMOUNT),
  max: Type.Optional(AMOUNT),
  weight: Type.Optional(Type.Number({ minimum: 0.01, maximum: 100 })),
  size: Type.Optional(Type.Union([Type.Literal('on-demand'), Type.Literal('working-set')])),
};

const BandTable = Type.Object(
  {
    name: Type.String({
      pattern: '^[A-Za-z0-9_-]{1,32}$',
      title: 'a string of 1 to 32 letters, digits, _ and -',
    }),
    match: Type.Optional(Type.Array(NAME_PATTERN)),
    kill: Type.Optional(Type.Boolean()),
    ...VM_POLICY,
  },
  { additionalProperties: false },
);

export const POLICY_TABLE = Type.Object(
  {
    mode: Type.Optional(Type.Union([Type.Literal('observe'), Type.Literal('auto'), Type.Literal('off')])),
    memory: Type.Optional(AMOUNT),
    reserve: Type.Optional(AMOUNT),
    'share-pools': Type.Optional(Type.Boolean()),
    interval: Type.Optional(Type.Number({ minimum: 0.1, maximum: 3600 })),
    'idle-tax': Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
    ramp: Type.Optional(RAMP),
    'urgent-ramp': Type.Optional(RAMP),
    'will-grace': Type.Optional(Type.Number({ minimum: 0.1, maximum: 86400 })),
    'force-grace': Type.Optional(Type.Number({ minimum: 0.1, maximum: 86400 })),
    hold: Type.Optional(Type.Number({ minimum: 0, maximum: 86400 })),
    record: Type.Optional(NAME_PATTERN),
    'record-max': Type.Optional(SIZE),
    'default-band': Type.Optional(NAME_PATTERN),
    band: Type.Optional(Type.Array(BandTable, { minItems: 1, maxItems: 16 })),
  },
  { additionalProperties: false },
);

interface VmOverride {
  match: string;
  min?: string | undefined;
  max?: string | undefined;
  weight?: number | undefined;
  size?: Size | undefined;
}

/** The part of the configuration file that the policy is made from. */
export interface PolicyFile {
  policy?: Static<typeof POLICY_TABLE> | undefined;
  vm?: readonly VmOverride[] | undefined;
}

/** A size, or a share of something that is known later. */
export type Amount = { bytes: number } | { share: number };

/** Throws SizeError, which says what an amount looks like. */
export function parseAmount(text: string): Amount {
  const percent = /^(\d+(?:\.\d+)?) ?%$/.exec(text.trim())?.[1];
  if (percent === undefined) return { bytes: parseSize(text) };
  return { share: Number(percent) / 100 };
}

export function amountOf(amount: Amount, whole: number): number {
  return 'share' in amount ? amount.share * whole : amount.bytes;
}

interface BandSettings extends Band {
  readonly match: readonly string[];
  readonly min: Amount;
  readonly max: Amount;
  readonly weight: number;
  readonly size: Size;
}

/** What a VM is entitled to. */
export interface Entitlement {
  /** Index of its band. */
  readonly band: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly weight: number;
  readonly size: Size;
  /** Its floor was above its ceiling, and was lowered to it. */
  readonly contradictory: boolean;
}

/** More than that left over would leave VMs nothing. */
const MAX_RESERVE_SHARE = 0.9;

const DEFAULT_RECORD_MAX = '1G';
/** Less would be replaced before anybody reads it. */
const LEAST_RECORD_BYTES = 2 ** 20;

const BUILT_IN = [
  { name: 'gold', min: '50%', weight: 4 },
  { name: 'silver', min: '25%', weight: 2 },
  { name: 'bronze', min: '10%', weight: 1 },
];

/** `[policy]` with its defaults. */
export class PolicySettings {
  readonly mode: PolicyMode;
  /** What VMs may have of the host in all. */
  readonly memory: Amount;
  readonly reserve: Amount;
  /** Whether VMs in a pool of huge pages give memory to other VMs of that pool. */
  readonly sharePools: boolean;
  readonly intervalSeconds: number;
  readonly record: string | null;
  /** What the recording and the part before it may take up together. */
  readonly recordMaxBytes: number;
  readonly bands: readonly BandSettings[];
  readonly #defaultBand: number;
  readonly #rules: Omit<PolicyConfig, 'reserveShare' | 'bands' | 'stock'>;
  readonly #overrides: readonly VmOverride[];
  readonly #file: PolicyFile;

  /** Of a file in which policyMistakes() found none; `mode` goes before the mode of the file. */
  constructor(file: PolicyFile, mode?: PolicyMode) {
    const { policy = {}, vm = [] } = file;
    this.#file = file;
    this.mode = mode ?? policy.mode ?? 'observe';
    this.memory = parseAmount(policy.memory ?? '100%');
    this.reserve = parseAmount(policy.reserve ?? '10%');
    this.sharePools = policy['share-pools'] ?? false;
    this.intervalSeconds = policy.interval ?? 5;
    this.record = policy.record ?? null;
    this.recordMaxBytes = parseSize(policy['record-max'] ?? DEFAULT_RECORD_MAX);
    this.bands = (policy.band ?? BUILT_IN).map(
      ({
        name,
        match = [],
        min = '25%',
        max = '100%',
        weight = 1,
        size = 'on-demand',
        kill = false,
      }: Static<typeof BandTable>) => ({
        name,
        match,
        min: parseAmount(min),
        max: parseAmount(max),
        weight,
        size,
        kill,
      }),
    );
    const named = this.bands.findIndex(({ name }) => name === policy['default-band']);
    this.#defaultBand = named >= 0 ? named : this.bands.length - 1;
    this.#rules = {
      idleTax: policy['idle-tax'] ?? 0.75,
      rampShare: amountOf(parseAmount(policy.ramp ?? '1%'), 1),
      urgentRampShare: amountOf(parseAmount(policy['urgent-ramp'] ?? '20%'), 1),
      willSeconds: policy['will-grace'] ?? 30,
      forceSeconds: policy['force-grace'] ?? 30,
      holdSeconds: policy.hold ?? 60,
    };
    this.#overrides = vm;
  }

  /** The same in this mode; null: in that of the file. */
  inMode(mode: PolicyMode | null): PolicySettings {
    return new PolicySettings(this.#file, mode ?? undefined);
  }

  /** Of a host with that much: what VMs may have. */
  memoryBytes(hostBytes: number): number {
    return Math.min(hostBytes, Math.round(amountOf(this.memory, hostBytes)));
  }

  /** Where VMs may have `totalBytes` of the host's RAM. A pool keeps the same share in reserve as the RAM. */
  config(totalBytes: number, stock: StockKind = 'host'): PolicyConfig {
    const reserveShare = this.#reserveShare(totalBytes);
    return {
      ...this.#rules,
      bands: this.bands,
      stock,
      reserveShare: Math.min(MAX_RESERVE_SHARE, reserveShare),
    };
  }

  /** What of the amounts in the file cannot be on a host with that much, in words, or null. */
  misfit(hostBytes: number): string | null {
    const memory = amountOf(this.memory, hostBytes);
    if (memory > hostBytes) {
      return `VMs may have all of the host's memory, because memory (${formatSize(memory)}) is more than the host has (${formatSize(hostBytes)})`;
    }
    if (this.#reserveShare(memory) <= MAX_RESERVE_SHARE) return null;
    const reserve = amountOf(this.reserve, memory);
    return refusal(
      `the policy keeps ${MAX_RESERVE_SHARE * 100} % in reserve, because reserve (${formatSize(reserve)}) leaves VMs next to nothing of ${formatSize(memory)}`,
      'lower reserve',
    );
  }

  #reserveShare(totalBytes: number): number {
    return amountOf(this.reserve, totalBytes) / totalBytes;
  }

  /** The last `[[vm]]` that matches wins over the band that matches, or else the default band. */
  entitlement(name: string, ramBytes: number): Entitlement {
    const matched = this.bands.findIndex(({ match }) => match.some((pattern) => globMatches(pattern, name)));
    const index = matched < 0 ? this.#defaultBand : matched;
    const band = this.bands[index];
    if (band === undefined) throw new RangeError(`no band ${index}`);
    const own = this.#overrides.filter(({ match }) => globMatches(match, name));
    const last = <Key extends 'min' | 'max' | 'weight' | 'size'>(key: Key): VmOverride[Key] =>
      own.filter((override) => override[key] !== undefined).at(-1)?.[key];
    const min = last('min');
    const max = last('max');
    const inRam = (amount: Amount): number => Math.min(ramBytes, Math.round(amountOf(amount, ramBytes)));
    const minBytes = inRam(min === undefined ? band.min : parseAmount(min));
    const maxBytes = inRam(max === undefined ? band.max : parseAmount(max));
    return {
      band: index,
      minBytes: Math.min(minBytes, maxBytes),
      maxBytes,
      weight: last('weight') ?? band.weight,
      size: last('size') ?? band.size,
      contradictory: minBytes > maxBytes,
    };
  }
}

interface Mistake {
  /** The key, as `policy.band.0.min`. */
  readonly where: string;
  readonly what: RefusalText;
}

/** Everything in the file that cannot be meant, as far as that shows before there are VMs. */
export function policyMistakes(file: PolicyFile): Mistake[] {
  const { policy = {}, vm = [] } = file;
  const bands = policy.band ?? [];
  const tables = [
    ...bands.map((band, n) => ({ ...band, where: `policy.band.${n}` })),
    ...vm.map((entry, n) => ({ ...entry, where: `vm.${n}` })),
  ];
  return [
    ...amountMistakes(policy),
    ...tables.flatMap(({ where, min, max }) => shareMistakes(where, min, max)),
    ...bandMistakes(policy),
    ...overlaps(bands),
  ];
}

type PolicyTable = NonNullable<PolicyFile['policy']>;

function amountMistakes(policy: PolicyTable): Mistake[] {
  const mistakes = (['memory', 'reserve', 'ramp', 'urgent-ramp'] as const).flatMap(
    (key) => amountMistake(`policy.${key}`, policy[key], key.endsWith('ramp')) ?? [],
  );
  const memory = amountOrNull(policy.memory);
  if (memory !== null && amountOf(memory, 1) <= 0) {
    mistakes.push({
      where: 'policy.memory',
      what: refusal('must be more than 0, since it is all that VMs may have', 'raise it'),
    });
  }
  const reserve = amountOrNull(policy.reserve);
  if (reserve !== null && 'share' in reserve && reserve.share > MAX_RESERVE_SHARE && reserve.share <= 1) {
    const what = refusal(
      `is more than ${MAX_RESERVE_SHARE * 100}%, which leaves VMs next to nothing`,
      'lower it',
    );
    mistakes.push({ where: 'policy.reserve', what });
  }
  const record = amountOrNull(policy['record-max']);
  if (policy['record-max'] !== undefined && (record === null || amountOf(record, 0) < LEAST_RECORD_BYTES)) {
    const what = refusal(
      `must be a size from ${formatSize(LEAST_RECORD_BYTES)} to 8191 TiB`,
      'give such a size',
    );
    mistakes.push({ where: 'policy.record-max', what });
  }
  return mistakes;
}

function shareMistakes(where: string, min: string | undefined, max: string | undefined): Mistake[] {
  const wrong = [amountMistake(`${where}.min`, min, false), amountMistake(`${where}.max`, max, false)];
  const mistakes = wrong.filter((mistake) => mistake !== null);
  if (mistakes.length > 0 || min === undefined || max === undefined) return mistakes;
  const [floor, ceiling] = [parseAmount(min), parseAmount(max)];
  if ('share' in floor !== 'share' in ceiling || amountOf(floor, 1) <= amountOf(ceiling, 1)) return [];
  return [
    { where: `${where}.min`, what: refusal(`(${min}) is above max (${max})`, 'lower min or raise max') },
  ];
}

function bandMistakes(policy: PolicyTable): Mistake[] {
  const names = (policy.band ?? BUILT_IN).map(({ name }) => name);
  const mistakes = names.flatMap((name, n) =>
    names.indexOf(name) === n
      ? []
      : [
          {
            where: `policy.band.${n}.name`,
            what: refusal(`is that of another band (${name})`, 'give each its own'),
          },
        ],
  );
  const wanted = policy['default-band'];
  if (wanted !== undefined && !names.includes(wanted)) {
    const what = refusal(
      'names no band',
      `choose one of ${names.join(', ')}, or add [[policy.band]] with this name`,
    );
    mistakes.push({ where: 'policy.default-band', what });
  }
  return mistakes;
}

/** Of each two bands the first name that is in both. */
function overlaps(bands: readonly Static<typeof BandTable>[]): Mistake[] {
  const patterns = bands.flatMap(({ name, match = [] }, n) => match.map((pattern) => ({ name, n, pattern })));
  const mistakes = new Map<string, Mistake>();
  for (const a of patterns) {
    for (const b of patterns) {
      const pair = `${a.n} ${b.n}`;
      if (b.n <= a.n || a.name === b.name || mistakes.has(pair)) continue;
      const both = commonName(a.pattern, b.pattern);
      if (both === null) continue;
      mistakes.set(pair, {
        where: `policy.band.${b.n}.match`,
        what: refusal(
          `has "${b.pattern}", and a VM called "${both}" is in ${a.name} already by "${a.pattern}"`,
          'make one of them narrower',
        ),
      });
    }
  }
  return [...mistakes.values()];
}

/** The amount of a text; null: there is none, or the text is no amount. */
export function amountOrNull(text: string | undefined): Amount | null {
  try {
    return text === undefined ? null : parseAmount(text);
  } catch {
    return null;
  }
}

function amountMistake(where: string, text: string | undefined, share: boolean): Mistake | null {
  if (text === undefined) return null;
  let amount: Amount;
  try {
    amount = parseAmount(text);
  } catch {
    return {
      where,
      what: refusal(`"${text}" is no amount`, `write a percentage such as 25%, or ${SIZE_FORMS}`),
    };
  }
  const meant = lackedUnit(text);
  if (meant !== null && amountOf(amount, 1) > 0)
    return { where, what: refusal(`(${text}) is ${text} bytes`, `did you mean ${meant}?`) };
  if ('share' in amount && amount.share > 1)
    return { where, what: refusal(`"${text}" is more than 100%`, 'lower it') };
  if (share && !('share' in amount)) {
    return { where, what: refusal(`"${text}" is no percentage of RAM a second`, 'write one such as 1%') };
  }
  if (share && amountOf(amount, 1) <= 0) return { where, what: refusal('must be more than 0%', 'raise it') };
  return null;
}
