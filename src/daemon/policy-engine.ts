import type { EventName } from '../../protocol/control/events.js';
import type { PolicyChange, PolicyState as PolicyDocument, VmView } from '../../protocol/control/schema.js';
import type { TraceVm } from '../../protocol/policy-trace.js';
import { formatSize } from '../../protocol/control/size.js';
import { RefusedError } from '../control/fleet.js';
import { HOST_PATHS } from '../host/host-paths.js';
import { HostMemory, type HostReading } from '../host/meminfo.js';
import type { PressureTrigger } from '../host/pressure.js';
import type { Emit } from '../ops/event-log.js';
import type { PolicyMeasures } from '../ops/policy-families.js';
import { monotonicNow, msSince, wallNow, wallTime } from '../os/clock.js';
import type { Action, Cause } from '../policy/action.js';
import {
  LIMITABLE,
  MOVABLE,
  SELF_SIZED,
  TAKEABLE,
  UNASKABLE,
  vmTable,
  type VmTable,
} from '../policy/inputs.js';
import { plan } from '../policy/plan.js';
import {
  Column,
  emptyState,
  get,
  HIGH_STEPS,
  MAX_RUNG,
  moveRows,
  type PolicyState,
} from '../policy/state.js';
import { availableWords, describe } from '../policy/words.js';
import type { GovernedVm } from './governed-vm.js';
import { freshStat, VmReadings } from './policy-readings.js';
import { PolicyRecorder } from './policy-recorder.js';
import type { Entitlement, PolicySettings } from '../policy/settings.js';

/** Pressure wakes the policy at most that often. */
const WAKE_MS = 1000;

interface Said {
  text: string;
  at: string;
}

/** Looks at the host and its VMs every now and then, lets plan() decide, and does it where it may. */
export class PolicyEngine {
  #settings: PolicySettings;
  readonly #vms: () => readonly GovernedVm[];
  readonly #emit: Emit;
  readonly #host: HostMemory;
  readonly #now: () => number;
  readonly #recorder: PolicyRecorder | null;
  readonly #begun = monotonicNow();
  readonly #begunWall = wallNow();
  readonly #readings = new Map<string, VmReadings>();
  readonly #said = new Map<string, Said>();
  /** What was advised to a VM at the tick before: only news are told. */
  #advised = new Map<string, string>();
  readonly #degraded = new Set<string>();
  #state: PolicyState = emptyState(0);
  #names: readonly string[] = [];
  #seen: HostReading | null = null;
  /** VMs may have a part of the host's memory only, and that is what was seen. */
  #isPart = false;
  /** What was done since the daemon began, by `took`, `gave`, `forced` or `released`, and why. */
  readonly #acted: { action: string; reason: Cause; count: number }[] = [];
  #paused = false;
  #problem: string | null = null;
  #timer: NodeJS.Timeout | null = null;
  #trigger: PressureTrigger | null = null;
  #tickedAt = -Infinity;

  constructor(
    settings: PolicySettings,
    vms: () => readonly GovernedVm[],
    emit: Emit,
    { paths = HOST_PATHS, now = () => performance.now() / 1000 } = {},
  ) {
    this.#settings = settings;
    this.#vms = vms;
    this.#emit = emit;
    this.#host = new HostMemory(paths.proc);
    this.#now = now;
    const { record, recordMaxBytes: maxBytes } = settings;
    const failed = (why: string): void =>
      this.#degrade(
        'record',
        `the readings of the policy are not recorded: ${why}: make room, or set record in [policy] to another file`,
      );
    this.#recorder =
      record === null || settings.mode === 'off' ? null : new PolicyRecorder(record, { maxBytes, failed });
  }

  /** From the next tick on; mode, interval and record must be as they were. */
  configure(settings: PolicySettings): void {
    this.#settings = settings;
  }

  /** Ticks until close(). */
  start(): void {
    if (this.#settings.mode === 'off') return;
    this.#timer = setInterval(() => this.tick(), this.#settings.intervalSeconds * 1000).unref();
    try {
      this.#trigger = this.#host.watchPressure(() => this.#wake());
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#degrade(
        'psi',
        `the policy looks by time alone, because it cannot wait for memory pressure: ${why}`,
      );
    }
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#trigger?.close();
    for (const readings of this.#readings.values()) readings.close();
    this.#readings.clear();
    void this.#recorder?.close();
  }

  /** One look at everything, and what follows from it. */
  tick(): void {
    const host = this.#readHost();
    if (host === null) return;
    this.#tickedAt = performance.now();
    const vms = this.#vms().filter((vm) => vm.ramBytes > 0);
    this.#follow(vms.map(({ name }) => name));
    const table = this.#table(vms);
    const config = this.#settings.config(host.totalBytes, this.#isPart);
    const reading = {
      nowSeconds: this.#now(),
      totalBytes: host.totalBytes,
      availableBytes: host.availableBytes,
      pressurePercent: host.pressure?.some.avg10 ?? NaN,
    };
    const { actions, next } = plan(reading, table, config, this.#state);
    if (this.#settings.mode === 'auto') {
      const since = actions.map(({ row }) => reading.nowSeconds - get(this.#state, Column.markSeconds, row));
      this.#state = next;
      actions.forEach((action, n) =>
        this.#act(action, vms, describe(action, this.#names, table, config), since[n] ?? 0),
      );
    } else {
      this.#state = { ...this.#state, short: next.short };
      this.#advise(actions, (action) => describe(action, this.#names, table, config));
    }
  }

  /** What `show` says of a VM. */
  vmView(vm: GovernedVm): VmView['policy'] {
    const { band, minBytes, maxBytes } = this.#settings.entitlement(vm.name, vm.ramBytes);
    return { band: this.#bandName(band), minBytes, maxBytes, mode: this.#modeOf(vm) };
  }

  view(): PolicyDocument {
    const host = this.#readHost();
    const total = host?.totalBytes ?? 0;
    return {
      mode: this.#settings.mode,
      paused: this.#paused,
      problem: this.#problem,
      reserveBytes: total === 0 ? 0 : Math.round(this.#settings.config(total).reserveShare * total),
      host:
        host === null
          ? null
          : {
              totalBytes: host.totalBytes,
              availableBytes: host.availableBytes,
              pressurePercent: host.pressure?.some.avg10 ?? null,
              short: this.#state.short,
            },
      bands: this.#settings.bands.map(({ name }) => name),
      vms: this.#vms().map((vm) => this.#explained(vm)),
    };
  }

  /** For metrics: as of the last look, without one of its own. */
  measures(): PolicyMeasures {
    const host = this.#seen;
    const rows = new Map(this.#names.map((name, row) => [name, row]));
    const of = (name: string, column: Column): number => get(this.#state, column, rows.get(name) ?? -1);
    return {
      acted: this.#acted,
      mode: this.#settings.mode,
      paused: this.#paused,
      short: this.#state.short,
      reserveBytes:
        host === null
          ? null
          : Math.round(this.#settings.config(host.totalBytes).reserveShare * host.totalBytes),
      availableBytes: host?.availableBytes ?? null,
      vms: this.#vms().map(({ name, manual }) => ({
        name,
        force: rows.has(name) ? of(name, Column.rung) : 0,
        withstands: rows.has(name) && this.#now() < of(name, Column.refusedUntilSeconds),
        manual,
      })),
    };
  }

  /** Throws RefusedError. */
  change({ paused, vm: name }: PolicyChange): PolicyDocument {
    if (name === undefined) {
      if (paused !== this.#paused)
        this.#emit('policy-changed', paused ? 'paused for all VMs' : 'resumed', { paused });
      this.#paused = paused;
      return this.view();
    }
    const vm = this.#vms().find((candidate) => candidate.name === name);
    if (vm === undefined) throw new RefusedError(`there is no VM ${name}: see balloonctl list`);
    if (vm.manual !== paused) {
      const what = paused ? 'paused for this VM' : 'resumed for this VM';
      this.#emit('policy-changed', what, { paused }, name);
    }
    vm.manual = paused;
    return this.view();
  }

  #wake(): void {
    if (performance.now() - this.#tickedAt >= WAKE_MS) this.tick();
  }

  #readHost(): HostReading | null {
    try {
      const read = this.#host.read();
      const misfit = this.#settings.misfit(read.totalBytes);
      if (misfit !== null) this.#degrade('misfit', misfit);
      const totalBytes = this.#settings.memoryBytes(read.totalBytes);
      this.#isPart = totalBytes < read.totalBytes;
      this.#seen = this.#isPart
        ? { ...read, totalBytes, availableBytes: this.#left(totalBytes, read) }
        : read;
      return this.#seen;
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#degrade('host', `the policy does nothing, because the host's memory cannot be read: ${why}`);
      return null;
    }
  }

  /** Of what VMs may have in all: what they have not, as far as the host can give it. */
  #left(totalBytes: number, { availableBytes }: HostReading): number {
    const used = this.#vms().reduce((sum, vm) => sum + vm.allocatedBytes, 0);
    return Math.max(0, Math.min(availableBytes, totalBytes - used));
  }

  #degrade(what: string, message: string): void {
    this.#problem ??= message;
    if (this.#degraded.has(what)) return;
    this.#degraded.add(what);
    this.#emit('policy-degraded', message);
  }

  /** Keeps what is remembered of VMs that are still there. */
  #follow(names: readonly string[]): void {
    if (names.length === this.#names.length && names.every((name, row) => name === this.#names[row])) return;
    const rows = new Map(this.#names.map((name, row) => [name, row]));
    this.#state = moveRows(
      this.#state,
      names.map((name) => rows.get(name) ?? -1),
    );
    for (const [name, readings] of this.#readings) {
      if (names.includes(name)) continue;
      readings.close();
      this.#readings.delete(name);
      this.#said.delete(name);
    }
    this.#names = names;
  }

  #readingsOf(vm: GovernedVm): VmReadings {
    let readings = this.#readings.get(vm.name);
    if (readings === undefined) {
      readings = new VmReadings(vm.cgroup, () => this.#wake());
      this.#readings.set(vm.name, readings);
    }
    return readings;
  }

  #entitlement(name: string, ramBytes: number): Entitlement {
    const entitlement = this.#settings.entitlement(name, ramBytes);
    if (entitlement.contradictory) {
      this.#degrade(
        `floor of ${name}`,
        `the min of ${name} is above its max, so the policy takes the max for both: mend [[vm]]`,
      );
    }
    return entitlement;
  }

  #table(vms: readonly GovernedVm[]): VmTable {
    const table = vmTable(vms.length);
    const recorded: TraceVm[] = [];
    vms.forEach((vm, row) => {
      const { ramBytes, allocatedBytes } = vm;
      const { state, inhibited, stats, targetBytes, actualBytes, cache, askable } = vm.figures;
      const { band, minBytes, maxBytes, weight } = this.#entitlement(vm.name, ramBytes);
      const readings = this.#readingsOf(vm);
      const cgroup = readings.memory();
      const movable = state === 'running' && !vm.manual && !this.#paused;
      const limitable = cgroup !== null && vm.limitable;
      // The cgroup may be charged for more, such as page cache, or for less: memory on hugetlbfs, or touched by others.
      const overheadBytes = cgroup?.overheadBytes ?? 0;
      const currentBytes = Math.max(cgroup?.currentBytes ?? 0, allocatedBytes + overheadBytes);
      table.flags[row] =
        (movable ? MOVABLE : 0) |
        (inhibited === null ? TAKEABLE : 0) |
        (limitable ? LIMITABLE : 0) |
        (cache === null ? 0 : SELF_SIZED) |
        (askable ? 0 : UNASKABLE);
      table.band[row] = band;
      table.ramBytes[row] = ramBytes;
      table.minBytes[row] = minBytes;
      table.maxBytes[row] = maxBytes;
      table.weight[row] = weight;
      table.targetBytes[row] = targetBytes;
      table.actualBytes[row] = actualBytes;
      table.cacheLimitBytes[row] = cache?.targetBytes ?? 0;
      // What it says to hold, as far as the host has not got it.
      table.cachedBytes[row] = Math.min(
        cache?.actualBytes ?? 0,
        Math.max(0, ramBytes - allocatedBytes - actualBytes),
      );
      const available = freshStat(stats, 'VIRTIO_BALLOON_S_AVAIL');
      const free = freshStat(stats, 'VIRTIO_BALLOON_S_MEMFREE');
      const stall = Math.max(
        ...[cgroup?.pressurePercent ?? NaN, readings.stallPercent(stats)].filter((share) => share >= 0),
        0,
      );
      table.availableBytes[row] = available;
      table.freeBytes[row] = free;
      table.stallPercent[row] = stall;
      table.currentBytes[row] = currentBytes;
      table.overheadBytes[row] = overheadBytes;
      if (this.#recorder === null) return;
      const known = (value: number): number | null => (Number.isNaN(value) ? null : value);
      recorded.push({
        name: vm.name,
        band: this.#bandName(band),
        ramBytes,
        minBytes,
        maxBytes,
        targetBytes,
        actualBytes,
        guestAvailableBytes: known(available),
        guestFreeBytes: known(free),
        stallPercent: stall,
        currentBytes,
      });
    });
    const host = this.#seen;
    if (host !== null && this.#recorder !== null) {
      const { totalBytes, availableBytes } = host;
      this.#recorder.write({
        t: (this.#begunWall + msSince(this.#begun)) / 1000,
        totalBytes,
        availableBytes,
        vms: recorded,
      });
    }
    return table;
  }

  #count(action: string, reason: Cause): void {
    const entry = this.#acted.find((known) => known.action === action && known.reason === reason);
    if (entry === undefined) this.#acted.push({ action, reason, count: 1 });
    else entry.count++;
  }

  /** `sinceSeconds`: how long ago the VM was last asked for memory or forced, by the clock that plan() goes by. */
  #act(action: Action, vms: readonly GovernedVm[], text: string, sinceSeconds: number): void {
    const vm = vms[action.row];
    if (vm === undefined) return;
    this.#say(vm.name, text);
    const { cause, counterpart, hostAvailableBytes } = action.reason;
    const other = counterpart < 0 ? 'host' : (this.#names[counterpart] ?? 'host');
    const tell = (event: EventName, fields: Record<string, unknown>): void => {
      this.#emit(event, text, { cause, hostAvailableBytes, ...fields }, vm.name);
      this.#count(event.replace('policy-', ''), cause);
    };
    switch (action.kind) {
      case 'target': {
        const bytes = Math.abs(action.toBytes - action.fromBytes);
        if (action.toBytes > action.fromBytes)
          tell('policy-took', { donor: vm.name, receiver: other, bytes });
        else tell('policy-gave', { donor: other, receiver: vm.name, bytes });
        vm.setPolicyTarget(action.toBytes);
        return;
      }
      case 'cache-limit': {
        const { fromBytes, toBytes } = action;
        tell('policy-cache-limit', { fromBytes, toBytes });
        vm.setCacheLimit(toBytes);
        return;
      }
      case 'limit': {
        const { highBytes, maxBytes, rung } = action;
        const forced = cause === 'not-yielding';
        if (forced) tell('policy-forced', { highBytes, maxBytes, rung, graceSeconds: sinceSeconds });
        else tell('policy-released', { highBytes, maxBytes, rung });
        vm.force(highBytes, maxBytes).catch((error: unknown) => {
          const why = error instanceof Error ? error.message : String(error);
          this.#degrade(`force on ${vm.name}`, `${vm.name} cannot be held to less: ${why}`);
        });
        return;
      }
      case 'kill':
        tell('policy-forced', { killed: vm.pid, graceSeconds: sinceSeconds });
        try {
          process.kill(vm.pid, 'SIGKILL');
        } catch (error) {
          const why = error instanceof Error ? error.message : String(error);
          this.#degrade(`kill of ${vm.name}`, `${vm.name} cannot be killed: ${why}`);
        }
    }
  }

  #advise(actions: readonly Action[], text: (action: Action) => string): void {
    const advised = new Map<string, string>();
    for (const action of actions) {
      const name = this.#names[action.row] ?? '';
      const kind = `${action.kind} ${action.reason.cause}`;
      advised.set(name, kind);
      const words = `would have ${text(action).replace(/^took/, 'taken').replace(/^gave/, 'given')}`;
      this.#say(name, words);
      if (this.#advised.get(name) !== kind)
        this.#emit('policy-advice', words, { cause: action.reason.cause }, name);
    }
    this.#advised = advised;
  }

  #say(name: string, text: string): void {
    this.#said.set(name, { text, at: wallTime() });
  }

  #modeOf(vm: GovernedVm): NonNullable<VmView['policy']>['mode'] {
    if (this.#settings.mode === 'off') return 'off';
    if (vm.manual) return 'manual';
    return this.#paused ? 'paused' : this.#settings.mode;
  }

  #remembered(name: string, column: Column): number {
    const row = this.#names.indexOf(name);
    return row < 0 ? 0 : get(this.#state, column, row);
  }

  #bandName(band: number): string {
    return this.#settings.bands[band]?.name ?? '';
  }

  #explained(vm: GovernedVm): PolicyDocument['vms'][number] {
    const { ramBytes } = vm;
    const { band, minBytes, maxBytes, weight } = this.#settings.entitlement(vm.name, ramBytes);
    const mode = this.#modeOf(vm);
    const said = this.#said.get(vm.name);
    const rung = this.#remembered(vm.name, Column.rung);
    return {
      name: vm.name,
      band: this.#bandName(band),
      minBytes,
      maxBytes,
      weight,
      mode,
      force: rung === 0 ? 'none' : rung <= HIGH_STEPS ? 'high' : rung === MAX_RUNG ? 'max' : 'kill',
      said: said?.text ?? null,
      saidAt: said?.at ?? null,
      now: this.#standing(vm),
    };
  }

  /** What may be expected for it now, in words. */
  #standing(vm: GovernedVm): string {
    const host = this.#seen;
    const { state, targetBytes, cache, askable } = vm.figures;
    if (this.#settings.mode === 'off') return 'the policy is off (mode in [policy])';
    if (vm.manual)
      return `the policy leaves this VM alone: an operator set its target or cache limit, or paused the policy for it (balloonctl policy resume ${vm.name})`;
    if (this.#paused)
      return 'the policy leaves this VM alone: an operator paused the policy (balloonctl policy resume)';
    if (state !== 'running') return 'the policy leaves this VM alone: no guest driver runs';
    if (host === null) return 'the policy leaves this VM alone: the memory of the host cannot be read';
    const reserve = this.#settings.config(host.totalBytes).reserveShare * host.totalBytes;
    const figures = `${availableWords(this.#isPart)} ${formatSize(host.availableBytes)}`;
    const expected = askable ? 0 : this.#remembered(vm.name, Column.expectedBytes);
    const has =
      (targetBytes > 0 ? `; ${formatSize(targetBytes)} of this VM stay taken` : '') +
      (expected > 0 ? `; this VM is to give ${formatSize(expected)} by itself` : '') +
      (cache === null
        ? ''
        : `; its page cache balloon holds ${formatSize(cache.actualBytes)} of at most ${formatSize(cache.targetBytes)}`);
    if (host.availableBytes < reserve) {
      return `the policy looks for memory, idle memory first and lower bands first: ${figures} < reserve ${formatSize(reserve)}${has}`;
    }
    return `the policy asks this VM for nothing more, because the reserve is there: ${figures}, reserve ${formatSize(reserve)}${has}`;
  }
}
