/**
 * The governor: the part of the daemon that lets a policy decide, and does what it decides. The fleet makes one, calls
 * start() when all VMs are back, and close() at the end. Each tick goes through this folder in this order: host-view and
 * table (readings of each VM) are read, trace records them, the planner of src/policy decides, act does it or says what it
 * would be. roster remembers VMs from one tick to the next; explain puts all of it into words.
 */
import { refusal } from '../../protocol/control/refusal.js';
import type { PolicyChange, PolicyState as PolicyDocument, VmView } from '../../protocol/control/schema.js';
import { RefusedError } from '../control/fleet.js';
import { HOST_PATHS, type HostPaths } from '../host/host-paths.js';
import type { HostReading } from '../host/meminfo.js';
import type { PressureTrigger } from '../host/pressure.js';
import type { Emit } from '../ops/event-log.js';
import type { PolicyMeasures } from '../ops/policy-families.js';
import { wallNow } from '../os/clock.js';
import type { VmTable } from '../policy/inputs.js';
import { BandPlanner } from '../policy/plan.js';
import type { Plan, Planner } from '../policy/planner.js';
import type { PolicySettings } from '../policy/settings.js';
import { Column } from '../policy/state.js';
import { describe } from '../policy/words.js';
import { OrderBook } from '../vm/order-book.js';
import { pauseView } from '../vm/orders.js';
import { Actor, type Deed } from './act.js';
import { explained, vmPolicy, type Standing } from './explain.js';
import type { GovernedVm } from './governed-vm.js';
import { HostView } from './host-view.js';
import { Roster } from './roster.js';
import { pauseAll, TableReader } from './table.js';
import { traceOf, type Trace } from './trace.js';
import { Troubles } from './troubles.js';

/** Pressure wakes the policy at most that often. */
const WAKE_MS = 1000;

interface EngineOptions {
  readonly paths?: HostPaths;
  /** Seconds of any one clock. */
  readonly now?: () => number;
  /** The policy; without one, that of balloond. */
  readonly planner?: Planner;
  /** Where a pause for all VMs is noted, and found again. */
  readonly book?: OrderBook;
}

export class PolicyEngine {
  #settings: PolicySettings;
  readonly #vms: () => readonly GovernedVm[];
  readonly #emit: Emit;
  readonly #now: () => number;
  readonly #planner: Planner;
  readonly #troubles: Troubles;
  readonly #host: HostView;
  readonly #reader: TableReader;
  readonly #actor: Actor;
  readonly #trace: Trace | null;
  readonly #roster = new Roster();
  readonly #book: OrderBook;
  #timer: NodeJS.Timeout | null = null;
  #trigger: PressureTrigger | null = null;
  #tickedAt = -Infinity;

  constructor(
    settings: PolicySettings,
    vms: () => readonly GovernedVm[],
    emit: Emit,
    {
      paths = HOST_PATHS,
      now = () => performance.now() / 1000,
      planner,
      book = new OrderBook(),
    }: EngineOptions = {},
  ) {
    this.#settings = settings;
    this.#vms = vms;
    this.#emit = emit;
    this.#now = now;
    this.#book = book;
    this.#planner = planner ?? new BandPlanner();
    this.#troubles = new Troubles(emit);
    this.#host = new HostView(paths, this.#troubles);
    this.#reader = new TableReader(() => this.#wake(), this.#troubles);
    this.#actor = new Actor(emit, this.#troubles);
    this.#trace = traceOf(settings, this.#troubles);
  }

  /** From the next tick on; mode, interval and record must be as they were. */
  configure(settings: PolicySettings): void {
    this.#settings = settings;
  }

  /** Ticks until close(). */
  start(): void {
    if (this.#settings.mode === 'off') return;
    const { paused } = this.#book;
    if (paused !== null) {
      const { since, undo } = pauseView(paused);
      const message = `the policy stays paused for all VMs, as an operator ordered at ${since ?? 'a time that is not known'}: ${undo} ends the pause`;
      this.#emit('orders-applied', message, { orders: 'policy' });
    }
    this.#timer = setInterval(() => this.tick(), this.#settings.intervalSeconds * 1000).unref();
    this.#trigger = this.#host.watchPressure(() => this.#wake());
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#trigger?.close();
    this.#reader.close();
    void this.#trace?.close();
  }

  /** One look at everything, and the actions that follow from it. */
  tick(): void {
    const host = this.#look();
    if (host === null) return;
    this.#tickedAt = performance.now();
    const vms = this.#vms().filter((vm) => vm.ramBytes > 0 && vm.sharedBytes > 0);
    for (const gone of this.#roster.follow(vms.map(({ name }) => name))) {
      this.#reader.forget(gone);
      this.#actor.forget(gone);
    }
    const table = this.#reader.read(vms, this.#settings);
    this.#trace?.write(host, table, vms, this.#settings);
    if (this.#book.paused !== null) pauseAll(table);
    const planned = this.#plan(host, table);
    const deeds = this.#deeds(planned, vms, table);
    if (this.#settings.mode === 'auto') {
      this.#roster.state = planned.next;
      for (const deed of deeds) this.#actor.do(deed);
    } else {
      this.#roster.state = { ...this.#roster.state, short: planned.next.short };
      this.#actor.advise(deeds);
    }
  }

  /** The policy of a VM, as `show` has it. */
  vmView(vm: GovernedVm): VmView['policy'] {
    return vmPolicy(vm, { settings: this.#settings, paused: this.#book.paused });
  }

  view(): PolicyDocument {
    const host = this.#look();
    const standing = this.#standing;
    return {
      mode: this.#settings.mode,
      paused: standing.paused !== null,
      problem: this.#troubles.first,
      reserveBytes: host === null ? 0 : this.#reserveBytes(host),
      host:
        host === null
          ? null
          : {
              totalBytes: host.totalBytes,
              availableBytes: host.availableBytes,
              pressurePercent: host.pressure?.some.avg10 ?? null,
              short: this.#roster.state.short,
            },
      bands: this.#settings.bands.map(({ name }) => name),
      vms: this.#vms().map((vm) => explained(vm, standing)),
      orders: standing.paused === null ? [] : [pauseView(standing.paused)],
    };
  }

  /** The figures for metrics: as of the last look, without one of its own. */
  measures(): PolicyMeasures {
    const host = this.#host.last;
    const roster = this.#roster;
    return {
      acted: this.#actor.counts,
      mode: this.#settings.mode,
      paused: this.#book.paused !== null,
      short: roster.state.short,
      reserveBytes: host === null ? null : this.#reserveBytes(host),
      availableBytes: host?.availableBytes ?? null,
      vms: this.#vms().map(({ name, manual }) => ({
        name,
        force: roster.remembered(name, Column.rung),
        withstands: this.#now() < roster.remembered(name, Column.refusedUntilSeconds),
        manual,
      })),
    };
  }

  /** Pauses the policy or lets it act again, for one VM or all. Throws RefusedError. */
  change({ paused, vm: name }: PolicyChange): PolicyDocument {
    if (name === undefined) {
      if (paused !== (this.#book.paused !== null)) {
        this.#book.pause(paused ? wallNow() : null);
        this.#emit('policy-changed', paused ? 'paused for all VMs' : 'resumed', { paused });
      }
      return this.view();
    }
    const vm = this.#vms().find((candidate) => candidate.name === name);
    if (vm === undefined) throw new RefusedError(refusal(`there is no VM ${name}`, 'see balloonctl list'));
    if (vm.manual !== paused) {
      const words = paused ? 'paused for this VM' : 'resumed for this VM';
      this.#emit('policy-changed', words, { paused }, name);
    }
    vm.manual = paused;
    return this.view();
  }

  get #standing(): Standing {
    const said = this.#actor.said.bind(this.#actor);
    return {
      settings: this.#settings,
      paused: this.#book.paused,
      host: this.#host,
      roster: this.#roster,
      said,
    };
  }

  #wake(): void {
    if (performance.now() - this.#tickedAt >= WAKE_MS) this.tick();
  }

  #look(): HostReading | null {
    const used = (): number => this.#vms().reduce((sum, vm) => sum + vm.allocatedBytes, 0);
    return this.#host.look(this.#settings, used);
  }

  #plan({ totalBytes, availableBytes, pressure }: HostReading, table: VmTable): Plan {
    const config = this.#settings.config(totalBytes, this.#host.isPart);
    const pressurePercent = pressure?.some.avg10 ?? NaN;
    const reading = { nowSeconds: this.#now(), totalBytes, availableBytes, pressurePercent };
    return this.#planner.plan(reading, table, config, this.#roster.state);
  }

  /** The actions of a plan with all that it takes to do and to tell them. */
  #deeds({ actions }: Plan, vms: readonly GovernedVm[], table: VmTable): Deed[] {
    const { names } = this.#roster;
    const described = { bands: this.#settings.bands, partOfHost: this.#host.isPart };
    const now = this.#now();
    return actions.flatMap((action) => {
      const vm = vms[action.row];
      if (vm === undefined) return [];
      const text = describe(action, names, table, described);
      const other = names[action.reason.counterpart] ?? 'host';
      const sinceSeconds = now - this.#roster.remembered(vm.name, Column.markSeconds);
      return [{ action, vm, other, text, sinceSeconds }];
    });
  }

  #reserveBytes({ totalBytes }: HostReading): number {
    return Math.round(this.#settings.config(totalBytes).reserveShare * totalBytes);
  }
}
