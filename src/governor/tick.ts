/**
 * The governor: the part of the daemon that lets a policy decide, and does what it decides. The fleet makes one, calls
 * start() when all VMs are back, and close() at the end. Each tick goes through this folder in this order: stocks sorts VMs by
 * the memory that they share (the host's RAM, or a pool of huge pages), and for each stock host-view or pool-view and table
 * (readings of each VM) are read, trace records them, the planner of src/policy decides, act does it or says what it would be.
 * roster remembers the VMs of a stock from one tick to the next; explain puts all of it into words.
 */
import { refusal } from '../../protocol/control/refusal.js';
import type { LivePolicy, LiveVm } from '../../protocol/control/live.js';
import type {
  PolicyAdvice,
  PolicyChange,
  PolicyState as PolicyDocument,
  PoolState,
  VmOrder,
  VmView,
} from '../../protocol/control/schema.js';
import { RefusedError } from '../control/fleet.js';
import { HOST_PATHS, type HostPaths } from '../host/host-paths.js';
import type { PressureTrigger } from '../host/pressure.js';
import type { Emit } from '../ops/event-log.js';
import type { PolicyMeasures } from '../ops/policy-families.js';
import { wallNow } from '../os/clock.js';
import type { Action } from '../policy/action.js';
import { MOVABLE, SIZED, TAKEABLE, type VmTable } from '../policy/inputs.js';
import { BandPlanner } from '../policy/plan.js';
import type { Planner } from '../policy/planner.js';
import type { PolicyMode, PolicySettings } from '../policy/settings.js';
import { Column } from '../policy/state.js';
import { OrderBook } from '../vm/order-book.js';
import { modeView, pauseView } from '../vm/orders.js';
import { Actor, adviceOf } from './act.js';
import { explained, forceOf, vmPolicy, type Standing } from './explain.js';
import type { GovernedVm, SeenVm } from './governed-vm.js';
import { HostView } from './host-view.js';
import { Sizer, type SizedVm } from './sizer.js';
import type { Unmet } from './reserve-watch.js';
import type { Decision, Stock } from './stock.js';
import { Stocks, type Members } from './stocks.js';
import { pauseAll, TableReader } from './table.js';
import { traceOf, type Trace } from './trace.js';
import { Troubles } from './troubles.js';

/**
 * Pressure wakes the policy at most that often, memory that it takes for others has it look again so soon, and it looks
 * that often whether the host loses memory fast.
 */
const WAKE_MS = 1000;

/** A guest has so long to say how much memory it has available. */
const ANSWER_MS = 5000;

/** A pause of the policy, or its end. */
type PauseChange = Exclude<PolicyChange, { mode: unknown }>;

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
  readonly #stocks: Stocks;
  readonly #book: OrderBook;
  readonly #sizer: Sizer;
  #timer: NodeJS.Timeout | null = null;
  #watch: NodeJS.Timeout | null = null;
  #soon: NodeJS.Timeout | null = null;
  #trigger: PressureTrigger | null = null;
  #tickedAt = -Infinity;
  /** The VMs that were asked how much memory they have available, and have not said. */
  readonly #asked = new Set<GovernedVm>();

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
    this.#settings = settings.inMode(book.mode?.word ?? null);
    this.#vms = vms;
    this.#emit = emit;
    this.#now = now;
    this.#book = book;
    this.#planner = planner ?? new BandPlanner();
    this.#troubles = new Troubles(emit);
    this.#host = new HostView(paths, this.#troubles, () => this.#usedBytes());
    this.#stocks = new Stocks(this.#host, paths.hugePages, this.#troubles);
    this.#reader = new TableReader(() => this.#wake(), this.#troubles);
    this.#actor = new Actor(emit, this.#troubles);
    this.#trace = traceOf(settings, this.#troubles);
    this.#sizer = new Sizer({ now, proc: paths.proc, room: () => this.#host.room(this.#settings) });
  }

  /** From the next tick on; mode, interval and record must be as they were. */
  configure(settings: PolicySettings): void {
    this.#settings = settings.inMode(this.#book.mode?.word ?? null);
  }

  /** Whether the policy sets targets. */
  get acts(): boolean {
    return this.#settings.mode === 'auto';
  }

  /** Ticks until close(). */
  start(): void {
    for (const { order, says, since, undo } of this.#orders) {
      const when = since ?? 'a time that is not known';
      const message = `${says}, as an operator ordered at ${when}: ${undo} takes it back`;
      this.#emit('orders-applied', message, { orders: order });
    }
    this.#begin();
  }

  #begin(): void {
    if (this.#settings.mode === 'off') return;
    this.#timer = setInterval(() => this.tick(), this.#settings.intervalSeconds * 1000).unref();
    if (this.acts) this.#watch = setInterval(() => this.#wakeWhereItFalls(), WAKE_MS).unref();
    this.#trigger = this.#host.watchPressure(() => this.#wake());
  }

  #rest(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    if (this.#watch !== null) clearInterval(this.#watch);
    if (this.#soon !== null) clearTimeout(this.#soon);
    this.#timer = this.#watch = this.#soon = null;
    this.#trigger?.close();
    this.#trigger = null;
  }

  close(): void {
    this.#rest();
    this.#sizer.close();
    this.#reader.close();
    void this.#trace?.close();
  }

  /** One look at everything, and the actions that follow from it. */
  tick(): void {
    // This is the look that was due soon.
    if (this.#soon !== null) clearTimeout(this.#soon);
    this.#soon = null;
    const members = this.#look();
    if (members === null) return;
    this.#tickedAt = performance.now();
    this.#host.decided();
    const sized: SizedVm[] = [];
    const decisions = members.map(({ stock, vms }) => this.#decide(stock, vms, sized));
    const deeds = decisions.flatMap((decision) => decision.deeds);
    if (this.acts) {
      for (const vm of decisions.flatMap(({ askFirst }) => askFirst)) this.#askFirst(vm);
      for (const deed of deeds) this.#actor.do(deed);
      this.#sizer.follow(sized);
      if (deeds.some(({ action }) => isTakenForOthers(action))) this.#lookSoon();
    } else this.#actor.advise(deeds);
  }

  /** The actions that mode auto would take now. Nothing is done or remembered. */
  advice(): PolicyAdvice {
    const settings = this.#settings.inMode('auto');
    const deeds = (this.#look() ?? []).flatMap(({ stock, vms: seen }) => {
      const vms = seen.map(({ vm }) => vm);
      const table = this.#reader.read(seen, settings);
      const how = { planner: this.#planner, settings, nowSeconds: this.#now(), dryRun: true };
      table.statsAgeSeconds.fill(0);
      return stock.decide(vms, table, how).deeds;
    });
    return deeds.map(adviceOf);
  }

  /** The VMs by the memory that they share; null: the host cannot be read. */
  #look(): readonly Members[] | null {
    if (this.#host.look(this.#settings) === null) return null;
    const seen = this.#vms()
      .map((vm) => ({ vm, figures: vm.figures }))
      .filter(({ vm, figures }) => vm.ramBytes > 0 && (vm.sharedBytes > 0 || !figures.sharesMemory));
    const { members, gone, moved } = this.#stocks.divide(seen);
    for (const name of gone) {
      this.#reader.forget(name);
      this.#actor.forget(name);
    }
    for (const { vm } of moved) this.#actor.release(vm);
    this.#stocks.lookAtPools(this.#settings);
    return members;
  }

  /** The stocks whose reserve the VMs cannot give: why, and what mends it. */
  get unmet(): readonly Unmet[] {
    return this.#stocks.unmet;
  }

  /** The policy of a VM, as `show` has it. */
  vmView(vm: GovernedVm): VmView['policy'] {
    return vmPolicy(vm, { settings: this.#settings, paused: this.#book.paused });
  }

  view(): PolicyDocument {
    const host = this.#host.look(this.#settings);
    this.#stocks.lookAtPools(this.#settings);
    const { ram } = this.#stocks;
    const standing = this.#standing;
    const [unmet] = this.unmet;
    return {
      mode: this.#settings.mode,
      paused: standing.paused !== null,
      problem: unmet === undefined ? this.#troubles.first : refusal(unmet.text, unmet.remedy),
      reserveBytes: host === null ? 0 : Math.round(ram.reserveBytes(this.#settings) ?? 0),
      host:
        host === null
          ? null
          : {
              totalBytes: host.totalBytes,
              availableBytes: host.availableBytes,
              pressurePercent: host.pressure?.some.avg10 ?? null,
              short: ram.roster.state.short,
              part: this.#host.kind !== 'host',
            },
      pools: this.#pools,
      bands: this.#settings.bands.map(({ name }) => name),
      vms: this.#vms().map((vm) => explained(vm, standing)),
      orders: this.#orders,
    };
  }

  /** The policy as the page shows it, as of the last look. */
  live(): LivePolicy {
    const reserve = this.#stocks.ram.reserveBytes(this.#settings);
    const host = this.#host.last;
    return {
      mode: this.#settings.mode,
      paused: this.#book.paused !== null,
      bands: this.#settings.bands.map(({ name }) => name),
      reserveBytes: reserve === null ? null : Math.round(reserve),
      part:
        host === null || this.#host.kind === 'host'
          ? null
          : { totalBytes: host.totalBytes, availableBytes: host.availableBytes },
      pressurePercent: host?.pressure?.some.avg10 ?? null,
    };
  }

  /** A VM as the page shows it, as of the last look. */
  liveVm(vm: GovernedVm): Pick<LiveVm, 'band' | 'mode' | 'force' | 'workingSetBytes'> {
    const { band, mode } = vmPolicy(vm, { settings: this.#settings, paused: this.#book.paused });
    const force = forceOf(vm, this.#standing);
    return { band, mode, force, workingSetBytes: this.#sizer.workingSetBytes(vm.name) };
  }

  /** The figures for metrics: as of the last look, without one of its own. */
  measures(): PolicyMeasures {
    const host = this.#host.last;
    const { ram } = this.#stocks;
    const reserve = ram.reserveBytes(this.#settings);
    return {
      acted: this.#actor.counts,
      mode: this.#settings.mode,
      paused: this.#book.paused !== null,
      short: ram.roster.state.short,
      reserveBytes: reserve === null ? null : Math.round(reserve),
      availableBytes: host?.availableBytes ?? null,
      pools: this.#pools,
      vms: this.#vms().map(({ name, manual }) => ({
        name,
        force: this.#stocks.of(name).roster.remembered(name, Column.rung),
        withstands: this.#now() < this.#stocks.of(name).roster.remembered(name, Column.refusedUntilSeconds),
        manual,
      })),
    };
  }

  /** Pauses the policy or lets it act again, for one VM or all. Throws RefusedError. */
  change({ paused, vm: name }: PauseChange): PolicyDocument {
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

  /** Sets the mode until another one is set, over restarts of the daemon as well; null: that of the configuration. */
  changeMode(mode: PolicyMode | null): PolicyDocument {
    const acted = this.acts;
    const before = this.#settings.mode;
    if (mode !== (this.#book.mode?.word ?? null))
      this.#book.setMode(mode === null ? null : { word: mode, since: wallNow() });
    this.#settings = this.#settings.inMode(mode);
    const now = this.#settings.mode;
    if (now === before) return this.view();
    const whose = mode === null ? 'of the configuration' : 'set by an operator';
    this.#emit('policy-changed', `mode ${now}, ${whose}; it was ${before}`, { mode: now, before });
    if (acted) this.#letGo();
    this.#rest();
    this.#begin();
    return this.view();
  }

  /** Ends force, and lets sizes be: the policy acts no more. Targets stay. */
  #letGo(): void {
    for (const vm of this.#vms()) this.#actor.release(vm);
    this.#stocks.forget(this.#emit);
    this.#sizer.follow([]);
  }

  /** The orders for all VMs. */
  get #orders(): VmOrder[] {
    const { mode, paused } = this.#book;
    return [
      ...(mode === null ? [] : [modeView(mode.word, mode.since)]),
      ...(paused === null ? [] : [pauseView(paused)]),
    ];
  }

  get #standing(): Standing {
    return {
      settings: this.#settings,
      paused: this.#book.paused,
      stockOf: ({ name, figures }) => this.#stocks.of(name, figures.pool?.pageBytes),
      nowSeconds: this.#now(),
      said: (name) => this.#actor.said(name),
      sized: (name) => this.#sizer.words(name),
    };
  }

  /** Does not wait for the interval: a need that grows is served in steps. */
  #lookSoon(): void {
    if (this.#timer === null || this.#settings.intervalSeconds * 1000 <= WAKE_MS) return;
    this.#soon ??= setTimeout(() => this.tick(), WAKE_MS).unref();
  }

  /** Looks again when the guest has said how much memory it has available. */
  #askFirst(vm: GovernedVm): void {
    const device = vm.playing('balloon');
    if (device === undefined || this.#asked.has(vm)) return;
    this.#asked.add(vm);
    void device.refreshStats(ANSWER_MS).then((isNew) => {
      this.#asked.delete(vm);
      if (isNew) this.#lookSoon();
    });
  }

  #wake(): void {
    if (this.#timer !== null && performance.now() - this.#tickedAt >= WAKE_MS) this.tick();
  }

  #wakeWhereItFalls(): void {
    if (this.#host.falls(this.#settings)) this.#wake();
  }

  /** The RAM of the host that guests take up: those in a pool take it from there. */
  #usedBytes(): number {
    const inRam = this.#vms().filter(({ figures }) => figures.pool === null);
    return inRam.reduce((sum, vm) => sum + vm.allocatedBytes, 0);
  }

  /** Adds the VMs whose balloons follow their working sets to `sized`. */
  #decide(stock: Stock, seen: readonly SeenVm[], sized: SizedVm[]): Decision {
    const table = this.#reader.read(seen, this.#settings);
    const vms = seen.map(({ vm }) => vm);
    // The simulator, which reads traces, has one stock.
    if (stock === this.#stocks.ram && stock.last !== null)
      this.#trace?.write(stock.last, table, vms, this.#settings);
    if (!this.acts) table.statsAgeSeconds.fill(0);
    const isPaused = this.#book.paused !== null;
    if (isPaused) pauseAll(table);
    sized.push(...sizedOf(vms, table));
    const how = { planner: this.#planner, settings: this.#settings, nowSeconds: this.#now() };
    const decision = stock.decide(vms, table, how);
    if (isPaused || vms.length === 0) stock.rest(this.#emit);
    else stock.watchReserve(decision.lackingBytes, how, this.#emit);
    return decision;
  }

  /** The pools that VMs share, where they share any. */
  get #pools(): PoolState[] {
    const { sharePools } = this.#settings;
    return sharePools ? this.#stocks.pools.flatMap((pool) => pool.state(this.#settings) ?? []) : [];
  }
}

/** Memory that is taken since the host is short or another VM needs it. */
function isTakenForOthers(action: Action): boolean {
  const { kind, reason } = action;
  return kind === 'target' && (reason.cause === 'host-short' || reason.cause === 'needed-elsewhere');
}

/** The VMs whose balloons follow their working sets, where memory that they give up reaches the host. */
function sizedOf(vms: readonly GovernedVm[], table: VmTable): SizedVm[] {
  const all = MOVABLE | TAKEABLE | SIZED;
  return vms.flatMap((vm, row) => {
    const { flags, minBytes, maxBytes } = table;
    if (((flags[row] ?? 0) & all) !== all) return [];
    return [{ vm, minBytes: minBytes[row] ?? 0, maxBytes: maxBytes[row] ?? 0 }];
  });
}
