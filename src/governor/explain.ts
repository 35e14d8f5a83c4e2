/** The governor in words and documents: `policy show`, `policy explain` and the policy of `show`. */
import type { PolicyState as PolicyDocument, VmView } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { vmCommand } from '../../protocol/control/vm-command.js';
import type { WallMs } from '../os/clock.js';
import { cacheLines } from '../policy/facts.js';
import type { PolicySettings } from '../policy/settings.js';
import { Column, HIGH_STEPS, MAX_RUNG } from '../policy/state.js';
import { availableWords, poolWords } from '../policy/words.js';
import { pauseView } from '../vm/orders.js';
import type { Said } from './act.js';
import type { GovernedVm } from './governed-vm.js';
import { keptInPool } from './pooled.js';
import type { Stock } from './stock.js';

/** The standing of the governor that explanations go by. */
export interface Standing {
  readonly settings: PolicySettings;
  /** The wall time at which an operator paused the policy for all VMs; null: it is not paused. */
  readonly paused: WallMs | null;
  /** The memory that the VM shares with others. */
  readonly stockOf: (vm: GovernedVm) => Stock;
  /** By the clock that the policy goes by. */
  readonly nowSeconds: number;
  readonly said: (name: string) => Said | undefined;
  /** Where the size of a VM stands that follows its working set; null: it does not. */
  readonly sized: (name: string) => string | null;
}

type Explained = PolicyDocument['vms'][number];

/** The entry of a VM in `policy show`, which `policy explain` shows. */
export function explained(vm: GovernedVm, standing: Standing): Explained {
  const { settings } = standing;
  const { band, minBytes, maxBytes, weight } = settings.entitlement(vm.name, vm.ramBytes);
  const said = standing.said(vm.name);
  return {
    name: vm.name,
    band: bandName(settings, band),
    minBytes,
    maxBytes,
    weight,
    mode: modeOf(vm, standing),
    force: forceOf(vm, standing),
    said: said?.text ?? null,
    saidAt: said?.at ?? null,
    now: nowWords(vm, standing),
  };
}

/** The policy of one VM in `show`. */
export function vmPolicy(
  vm: GovernedVm,
  standing: Pick<Standing, 'settings' | 'paused'>,
): NonNullable<VmView['policy']> {
  const { band, minBytes, maxBytes } = standing.settings.entitlement(vm.name, vm.ramBytes);
  return { band: bandName(standing.settings, band), minBytes, maxBytes, mode: modeOf(vm, standing) };
}

/** Who decides about the VM. */
function modeOf(
  vm: GovernedVm,
  { settings, paused }: Pick<Standing, 'settings' | 'paused'>,
): NonNullable<VmView['policy']>['mode'] {
  if (settings.mode === 'off') return 'off';
  if (vm.manual) return 'manual';
  return paused === null ? settings.mode : 'paused';
}

/** The force that the policy uses against the VM. */
export function forceOf(vm: GovernedVm, { stockOf }: Pick<Standing, 'stockOf'>): Explained['force'] {
  const rung = stockOf(vm).roster.remembered(vm.name, Column.rung);
  if (rung === 0) return 'none';
  if (rung <= HIGH_STEPS) return 'high';
  return rung === MAX_RUNG ? 'max' : 'kill';
}

/** The sentence on what may be expected for the VM now. */
function nowWords(vm: GovernedVm, standing: Standing): string {
  const { settings, paused } = standing;
  if (settings.mode === 'off') return 'the policy is off (mode in [policy], or balloonctl policy mode)';
  if (vm.leftAlone)
    return 'the policy leaves this VM alone: the configuration says so (target, or policy = "manual", in [[vm]])';
  if (vm.manual)
    return `the policy leaves this VM alone: an operator set its target or cache limit, or paused the policy for it (${vmCommand('balloonctl policy resume', vm.name)})`;
  if (paused !== null) {
    const { since, undo } = pauseView(paused);
    const when = since === null ? '' : ` at ${since.replace(/\.\d+Z$/, 'Z')}`;
    return `the policy leaves this VM alone: an operator paused the policy${when} (${undo})`;
  }
  if (vm.figures.state !== 'running') return 'the policy leaves this VM alone: no guest driver runs';
  if (vm.figures.actualUnknown)
    return 'the policy leaves this VM alone: its driver has yet to say what its balloon holds';
  const kept = keptInPool(vm, settings);
  if (kept !== null) return `the policy takes nothing from this VM: ${kept}`;
  const seconds =
    standing.stockOf(vm).roster.remembered(vm.name, Column.refusedUntilSeconds) - standing.nowSeconds;
  const refuses =
    seconds > 0
      ? `the policy takes nothing from this VM for ${Math.ceil(seconds)} s more, because it yielded to no step of force; `
      : '';
  return `${refuses}${stockWords(vm, standing)}`;
}

/** The sentence on the memory that is available in the stock of a VM. */
function stockWords(vm: GovernedVm, { settings, stockOf, sized }: Standing): string {
  const stock = stockOf(vm);
  const { last, poolPageBytes, view } = stock;
  const reserve = stock.reserveBytes(settings);
  if (last === null || reserve === null) {
    const what =
      poolPageBytes === null
        ? 'the memory of the host cannot be read'
        : `${poolWords(poolPageBytes)} cannot be read, or no page is reserved for it`;
    return `the policy leaves this VM alone: ${what}`;
  }
  const figures = `${availableWords(view.kind)} ${formatSize(last.availableBytes)}`;
  const held = holdings(vm, stock, settings);
  if (last.availableBytes < reserve)
    return `the policy looks for memory, idle memory first and lower bands first: ${figures} < reserve ${formatSize(reserve)}${held}${stock.unmet === null ? '' : `; ${stock.unmet.text}: ${stock.unmet.remedy}`}`;
  const size = sized(vm.name);
  const rest =
    size === null ? 'the policy asks this VM for nothing more, because the reserve is there: ' : `${size}; `;
  return `${rest}${figures}, reserve ${formatSize(reserve)}${held}`;
}

/** The memory that the VM does without, as the end of a sentence. */
function holdings({ name, figures }: GovernedVm, stock: Stock, settings: PolicySettings): string {
  const { targetBytes, cache, askable, deflatesOnOom } = figures;
  const expected = askable ? 0 : stock.roster.remembered(name, Column.expectedBytes);
  const parts = [
    targetBytes > 0 ? `${formatSize(targetBytes)} of this VM stay taken` : '',
    expected > 0 ? `this VM is to give ${formatSize(expected)} by itself` : '',
    cache === null ? '' : cacheWords(cache, stock, settings),
    deflatesOnOom
      ? ''
      : 'only memory that its guest does not use may be taken, because its driver gives none back when the guest runs out (deflate-on-oom)',
  ];
  return parts.map((part) => (part === '' ? '' : `; ${part}`)).join('');
}

/** Where the page cache balloon of a VM stands, and until when its limit stays as it is. */
function cacheWords(
  { targetBytes, actualBytes }: NonNullable<GovernedVm['figures']['cache']>,
  stock: Stock,
  settings: PolicySettings,
): string {
  const holds = `its page cache balloon holds ${formatSize(actualBytes)} of at most ${formatSize(targetBytes)}`;
  const reserve = stock.reserveBytes(settings);
  if (settings.mode !== 'auto' || stock.last === null || reserve === null) return holds;
  const { growBelowBytes, shrinkAboveBytes } = cacheLines(reserve, stock.last.totalBytes);
  const grows = `less than ${formatSize(growBelowBytes)}`;
  if (targetBytes === 0) return `its guest keeps its page cache until ${grows} are available`;
  const much = `more than ${formatSize(shrinkAboveBytes)} are available`;
  return stock.last.availableBytes > shrinkAboveBytes
    ? `${holds}, and gives memory back step by step, because ${much}`
    : `${holds}, and may hold less when ${much}`;
}

export function bandName({ bands }: PolicySettings, band: number): string {
  return bands[band]?.name ?? '';
}
