/**
 * A stock: the memory that some VMs share. The RAM of the host is one, and the pool of huge pages of each size is one of its own:
 * the policy plans for each stock by itself, because memory that a guest gives up never gets from one stock into another.
 */
import type { PoolState } from '../../protocol/control/schema.js';
import type { HostReading } from '../host/meminfo.js';
import type { PolicyConfig, StockKind, VmTable } from '../policy/inputs.js';
import type { Planner } from '../policy/planner.js';
import type { PolicySettings } from '../policy/settings.js';
import { Column } from '../policy/state.js';
import { describe } from '../policy/words.js';
import type { Emit } from '../ops/event-log.js';
import type { Deed } from './act.js';
import type { GovernedVm } from './governed-vm.js';
import { ReserveWatch, type Unmet } from './reserve-watch.js';
import { Roster } from './roster.js';

/** Reads the memory of a stock. */
export interface StockView {
  readonly kind: StockKind;
  /** The reading of the last look; null: there was none that could be read. */
  readonly last: HostReading | null;
  /** Null: the memory cannot be read, which is told. */
  look(settings: PolicySettings): HostReading | null;
}

/** The things that a decision depends on, besides the VMs. */
interface Circumstances {
  readonly planner: Planner;
  readonly settings: PolicySettings;
  readonly nowSeconds: number;
  /** Nothing is remembered of the decision. */
  readonly dryRun?: boolean;
}

export interface Decision {
  readonly deeds: Deed[];
  /** The VMs that should say how much memory they have available before any is taken from them. */
  readonly askFirst: readonly GovernedVm[];
  /** The part of the reserve that the VMs cannot give. */
  readonly lackingBytes: number;
}

export class Stock {
  readonly view: StockView;
  readonly roster = new Roster();
  readonly #reserve = new ReserveWatch();
  readonly #ram: StockView;

  /** `ram` is the view of the host's RAM, of which a reserve in bytes is a share. */
  constructor(view: StockView, ram = view) {
    this.view = view;
    this.#ram = ram;
  }

  /** The last reading; null: there was none. */
  get last(): HostReading | null {
    return this.view.last;
  }

  /** The size of the pages of this pool; null: this is the RAM of the host. */
  get poolPageBytes(): number | null {
    const { kind } = this.view;
    return typeof kind === 'object' ? kind.poolPageBytes : null;
  }

  /** The memory that stays available, in bytes; null: no reading, or none of the host's RAM. */
  reserveBytes(settings: PolicySettings): number | null {
    const config = this.#config(settings);
    return config === null || this.last === null ? null : config.reserveShare * this.last.totalBytes;
  }

  /** Why the VMs cannot give the reserve, and what mends it; null: they can, as far as is known. */
  get unmet(): Unmet | null {
    return this.#reserve.unmet;
  }

  /** Tells where the VMs begin to be unable to give the reserve, and where they can again. */
  watchReserve(lackingBytes: number, { settings, nowSeconds }: Circumstances, emit: Emit): void {
    const reserveBytes = this.reserveBytes(settings);
    if (this.last === null || reserveBytes === null) return;
    const { kind } = this.view;
    const { availableBytes } = this.last;
    this.#reserve.look({ kind, nowSeconds, availableBytes, reserveBytes, lackingBytes }, emit);
  }

  /** Nothing is asked of the VMs. */
  rest(emit: Emit): void {
    this.#reserve.rest(emit);
  }

  /** The pool as `policy show` has it; null: this is no pool, or it cannot be read. */
  state(settings: PolicySettings): PoolState | null {
    const { poolPageBytes: pageBytes, last, roster } = this;
    const reserveBytes = this.reserveBytes(settings);
    if (pageBytes === null || last === null || reserveBytes === null) return null;
    const { totalBytes, availableBytes } = last;
    const { short } = roster.state;
    return { pageBytes, totalBytes, availableBytes, reserveBytes: Math.round(reserveBytes), short };
  }

  /** The deeds that the planner wants done to these VMs, which are the rows of the table and all VMs of this stock. */
  decide(vms: readonly GovernedVm[], table: VmTable, circumstances: Circumstances): Decision {
    const { planner, settings, nowSeconds, dryRun = false } = circumstances;
    const config = this.#config(settings);
    if (this.last === null || config === null) return { deeds: [], askFirst: [], lackingBytes: 0 };
    const { totalBytes, availableBytes, pressure, beyondBytes = 0 } = this.last;
    const pressurePercent = pressure?.some.avg10 ?? NaN;
    const reading = { nowSeconds, totalBytes, availableBytes, beyondBytes, pressurePercent };
    const { roster, poolPageBytes } = this;
    const {
      actions,
      next,
      lackingBytes = 0,
      askFirst: rows = [],
    } = planner.plan(reading, table, config, roster.state);
    const deeds = actions.flatMap((action) => {
      const vm = vms[action.row];
      if (vm === undefined) return [];
      const text = describe(action, roster.names, table, config);
      const other = roster.names[action.reason.counterpart] ?? (poolPageBytes === null ? 'host' : 'pool');
      const sinceSeconds = nowSeconds - roster.remembered(vm.name, Column.markSeconds);
      return [{ action, vm, other, poolPageBytes, text, sinceSeconds }];
    });
    const askFirst = rows.flatMap((row) => vms[row] ?? []);
    if (dryRun) return { deeds, askFirst, lackingBytes };
    // A policy that only observes did nothing that could be remembered.
    roster.state = settings.mode === 'auto' ? next : { ...roster.state, short: next.short };
    return { deeds, askFirst, lackingBytes };
  }

  #config(settings: PolicySettings): PolicyConfig | null {
    const ram = this.#ram.last;
    return ram === null ? null : settings.config(ram.totalBytes, this.view.kind);
  }
}
