import { freemem, totalmem } from 'node:os';
import type { LiveTick } from '../../protocol/control/live.js';
import type {
  LimitRequest,
  PolicyChange,
  PolicyState,
  TargetRequest,
  VmView,
} from '../../protocol/control/schema.js';
import { RefusedError, type Fleet } from '../control/fleet.js';
import { HOST_PATHS, type HostPaths } from '../host/host-paths.js';
import { peerName, wellFormed } from '../host/peer.js';
import { mayPin } from '../host/pinned.js';
import { StateError, StateFile } from '../memory/state-file.js';
import type { EventLog } from '../ops/event-log.js';
import { Metrics, type MeteredVm } from '../ops/metrics.js';
import { VmMeters } from '../ops/vm-meters.js';
import { wallNow } from '../os/clock.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { peerCredentials } from '../os/socket.js';
import { GovernedDevices } from './governed-vm.js';
import { LimitError } from './limits.js';
import { PinWatch } from './pin-watch.js';
import { PolicyEngine } from '../governor/tick.js';
import { PolicySettings } from '../policy/settings.js';
import {
  deviceOptions,
  isOfferable,
  policyAfterReload,
  type ConfigFile,
  type DeviceKind,
  type SocketSettings,
} from './settings.js';
import { decodeVmRecord, identifyVm, type VmRecord } from './vm-record.js';
import { TargetError, Vm, type VmHandOver, type VmIdentity } from './vm.js';

/** A VM that a daemon before this one served, and that waits for one that can go on with it. */
export interface LeftAlone {
  /** The name that its connection is kept by, where that can be told. */
  connection: string | null;
}

export interface FleetOptions {
  /** Of the daemon. */
  version?: string;
  pinCheckMs?: number;
  paths?: HostPaths;
}

/** All VMs by name. A connection becomes a VM by adopt() and leaves by itself when it ends. */
export class VmFleet implements Fleet {
  readonly #vms = new Map<string, Vm>();
  /** Page cache balloons. One of the same process as a VM has that VM's name, and is shown as part of it. */
  readonly #caches = new Map<string, Vm>();
  /** All VMs with their devices, made when they are asked for and until one comes or goes. */
  #governedVms: Map<string, GovernedDevices> | null = null;
  readonly #started: ConfigFile;
  #config: ConfigFile;
  readonly #events: EventLog;
  readonly #keeper: FdKeeper;
  readonly #paths: HostPaths;
  readonly #pinWatch: PinWatch;
  readonly #metrics: Metrics;
  readonly #policy: PolicyEngine;

  constructor(
    config: ConfigFile,
    events: EventLog,
    keeper: FdKeeper,
    { version = '0', pinCheckMs, paths = HOST_PATHS }: FleetOptions = {},
  ) {
    this.#started = config;
    this.#config = config;
    this.#events = events;
    this.#keeper = keeper;
    this.#paths = paths;
    this.#pinWatch = new PinWatch(
      () => [...this.#all()],
      () => mayPin(paths.proc),
      pinCheckMs,
    );
    this.#policy = new PolicyEngine(
      new PolicySettings(config),
      () => [...this.#governed().values()],
      events.emit,
      {
        paths,
      },
    );
    this.#metrics = new Metrics(
      () => this.#metered(),
      version,
      () => this.#policy.measures(),
      events.counts,
    );
  }

  /**
   * What VMs that connect from now on get, what the policy goes by, and how often guests are asked for statistics.
   * `sockets` are those that are listened on; a VM of another one stays as it is.
   */
  configure(config: ConfigFile, sockets: readonly SocketSettings[]): void {
    this.#config = config;
    for (const vm of this.#all()) {
      const socket = sockets.find(({ path }) => path === vm.socketPath);
      if (socket === undefined && vm.socketPath !== null) continue;
      vm.statsIntervalSeconds = deviceOptions(config, socket ?? null, vm.name).statsIntervalSeconds;
    }
    this.#policy.configure(new PolicySettings(policyAfterReload(this.#started, config)));
  }

  /** Serves the VMM at the other end of the connected socket `fd`, which belongs to the fleet from then on. */
  adopt(fd: number, socket: SocketSettings | null): void {
    const begun = performance.now();
    this.#keeper.keep(fd, 'connection');
    const { pid } = peerCredentials(fd);
    const kind = socket?.device ?? 'balloon';
    const wanted = socket?.name ?? peerName(pid) ?? `pid-${pid}`;
    const name = this.#otherDevice(kind, pid)?.name ?? this.#freeName(wanted);
    const options = deviceOptions(this.#config, socket, name);
    const state = StateFile.create();
    const identity = { name, pid, socketPath: socket?.path ?? null, options };
    const vm = this.#serve(fd, identity, { keeper: this.#keeper, state, found: null });
    // Now that it has a record.
    this.#keeper.keep(state.fd, 'state');
    this.#events.emit(
      'vm-connected',
      `a VMM connected its ${vm.device} (pid ${pid})`,
      { pid, features: options.features },
      name,
    );
    vm.charge(performance.now() - begun);
  }

  /**
   * Goes on with the VM whose state file a daemon before this one left in `fd`. When that cannot be, everything is left
   * as it was, and what is known of it returned.
   */
  resume(fd: number): LeftAlone | null {
    let known: ReturnType<typeof identifyVm> = { name: null, connection: null };
    let state: StateFile | null = null;
    try {
      state = StateFile.open(fd);
      known = identifyVm(state.record());
      const found = decodeVmRecord(state.record());
      const { name } = found;
      const connection = this.#keeper.claim(found.connection);
      if (connection === null) {
        this.#events.emit('vm-disconnected', 'the VMM ended while no daemon ran', {}, name);
        state.close();
        return null;
      }
      const socket = (this.#config.socket ?? []).find(({ path }) => path === found.socket);
      const options = {
        ...deviceOptions(this.#config, socket ?? null, name),
        kind: found.device ?? ('balloon' as const),
        features: found.features.filter(isOfferable),
      };
      const identity = { name: this.#nameAgain(found), pid: found.pid, socketPath: found.socket, options };
      const handOver = { keeper: this.#keeper, state, found };
      // It takes care of itself from here on.
      state = null;
      const vm = this.#serve(connection, identity, handOver);
      vm.checkPinned();
      vm.resume();
      return null;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      state?.letGo();
      const wrong = error instanceof StateError ? error.message : (error.stack ?? error.message);
      this.#events.emit(
        'resume-failed',
        `the daemon cannot go on with a VM: ${wrong}`,
        {},
        known.name ?? undefined,
      );
      return { connection: known.connection };
    }
  }

  /** Whether no discard has been under way for longer than that. */
  discardsMove(withinMs: number): boolean {
    return [...this.#all()].every((vm) => vm.discardingMs < withinMs);
  }

  get size(): number {
    return this.#governed().size;
  }

  metrics(): Promise<Buffer> {
    return this.#metrics.text();
  }

  live(): LiveTick {
    return {
      time: wallNow(),
      hostTotalBytes: totalmem(),
      hostAvailableBytes: freemem(),
      vms: this.list().map(({ name, state, ramBytes, balloon, cache, policy, verdict }) => {
        return {
          name,
          state,
          band: policy?.band ?? null,
          ramBytes,
          targetBytes: balloon.targetBytes,
          actualBytes: balloon.actualBytes,
          cacheBytes: cache?.actualBytes ?? null,
          allocatedBytes: this.#devices(name)[0]?.allocatedBytes ?? 0,
          verdict,
        };
      }),
    };
  }

  list(): VmView[] {
    return [...this.#governed().keys()].flatMap((name) => this.find(name) ?? []);
  }

  find(name: string): VmView | undefined {
    const vm = this.#vms.get(name)?.view();
    const cache = this.#caches.get(name)?.view();
    const view = vm === undefined ? cache && cacheAlone(cache) : withCache(vm, cache);
    const governed = this.#governed().get(name);
    return view && governed && { ...view, policy: this.#policy.vmView(governed) };
  }

  setTarget(name: string, target: TargetRequest): VmView {
    try {
      if ('cacheLimitBytes' in target) this.#cache(name).setTarget({ balloonBytes: target.cacheLimitBytes });
      else this.#traditional(name).setTarget(target);
    } catch (error) {
      if (error instanceof TargetError) throw new RefusedError(error.message);
      throw error;
    }
    return this.#view(name);
  }

  async setLimits(name: string, limits: LimitRequest): Promise<VmView> {
    this.#view(name);
    try {
      // They are of the process, whichever devices it has.
      await (this.#vms.get(name) ?? this.#cache(name)).limits.request(limits);
    } catch (error) {
      if (error instanceof LimitError) throw new RefusedError(error.message);
      throw error;
    }
    return this.#view(name);
  }

  setStatsInterval(name: string, seconds: number): VmView {
    this.#view(name);
    for (const device of this.#devices(name)) device.statsIntervalSeconds = seconds;
    return this.#view(name);
  }

  async refreshStats(name: string, timeoutMs: number): Promise<VmView> {
    const vm = this.#vms.get(name) ?? this.#cache(name);
    if (vm.kind === 'balloon' && !vm.view().features.includes('VIRTIO_BALLOON_F_STATS_VQ')) {
      throw new RefusedError(
        `${name} has no statistics: load a driver in the guest that acks VIRTIO_BALLOON_F_STATS_VQ, or offer that feature in the configuration`,
      );
    }
    if (!(await vm.refreshStats(timeoutMs))) {
      throw new RefusedError(
        `${name} did not send statistics within ${timeoutMs / 1000} s: see \`balloonctl show ${name}\` for its state`,
      );
    }
    return this.#view(name);
  }

  async setInhibited(name: string, reason: string | null): Promise<VmView> {
    this.#view(name);
    await Promise.all(this.#devices(name).map((device) => device.setInhibited(reason)));
    return this.#view(name);
  }

  /** Begins to decide who gets the memory, when all VMs of the daemon before this one are back. */
  startPolicy(): void {
    this.#policy.start();
  }

  policy(): PolicyState {
    return this.#policy.view();
  }

  changePolicy(change: PolicyChange): PolicyState {
    return this.#policy.change(change);
  }

  close(): void {
    this.#policy.close();
    for (const vm of [...this.#all()]) vm.close();
  }

  #serve(fd: number, identity: VmIdentity, handOver: VmHandOver): Vm {
    const { name } = identity;
    const devices = identity.options.kind === 'balloon' ? this.#vms : this.#caches;
    const vm = new Vm(fd, identity, { ...handOver, paths: this.#paths }, this.#events.emit, () => {
      devices.delete(name);
      this.#governedVms = null;
      this.#metrics.forget(measuredAlone(vm));
      if (this.#devices(name).length === 0) this.#events.forget(name);
    });
    devices.set(name, vm);
    this.#governedVms = null;
    this.#pinWatch.wake();
    return vm;
  }

  *#metered(): Generator<MeteredVm> {
    for (const [name, vm] of this.#vms) {
      const cache = this.#caches.get(name);
      yield cache === undefined ? vm : measuredTogether(vm, cache);
    }
    for (const [name, cache] of this.#caches) if (!this.#vms.has(name)) yield measuredAlone(cache);
  }

  *#all(): Generator<Vm> {
    yield* this.#vms.values();
    yield* this.#caches.values();
  }

  /** Each once, whichever devices it has. */
  #governed(): Map<string, GovernedDevices> {
    if (this.#governedVms !== null) return this.#governedVms;
    const vms = new Map<string, GovernedDevices>();
    for (const { name } of this.#all()) {
      const [first, ...others] = this.#devices(name);
      if (first !== undefined) vms.set(name, new GovernedDevices(name, [first, ...others]));
    }
    this.#governedVms = vms;
    return vms;
  }

  #devices(name: string): Vm[] {
    return [this.#vms.get(name), this.#caches.get(name)].filter((device) => device !== undefined);
  }

  #view(name: string): VmView {
    const view = this.find(name);
    if (view === undefined) throw new RefusedError(`there is no VM ${name}: see balloonctl list`);
    return view;
  }

  #traditional(name: string): Vm {
    this.#view(name);
    const vm = this.#vms.get(name);
    if (vm !== undefined) return vm;
    throw new RefusedError(
      `${name} has a page cache balloon only: set its --cache-limit, or give the VM a balloon too (virtio-id=5)`,
    );
  }

  #cache(name: string): Vm {
    this.#view(name);
    const cache = this.#caches.get(name);
    if (cache !== undefined) return cache;
    throw new RefusedError(
      `${name} has no page cache balloon: connect one (virtio-id=13) to a socket with device = "cache-balloon"`,
    );
  }

  /** The VM's device of the other kind, where that has no partner yet. */
  #otherDevice(kind: DeviceKind, pid: number): Vm | undefined {
    const [own, others] = kind === 'balloon' ? [this.#vms, this.#caches] : [this.#caches, this.#vms];
    return [...others.values()].find((other) => pid > 0 && other.pid === pid && !own.has(other.name));
  }

  /** Of a VM that is gone on with. */
  #nameAgain(found: VmRecord): string {
    const other = this.#otherDevice(found.device ?? 'balloon', found.pid);
    // Older builds cut names within a character.
    const name = wellFormed(found.name);
    return other !== undefined && other.name === name ? name : this.#freeName(name);
  }

  #freeName(wanted: string): string {
    let name = wanted;
    for (let n = 2; this.#devices(name).length > 0; n++) name = `${wanted}-${n}`;
    return name;
  }
}

const NO_BALLOON: VmView['balloon'] = {
  targetBytes: 0,
  actualBytes: 0,
  pendingBytes: 0,
  discardedBytesTotal: 0,
  inflatedBytesTotal: 0,
  deflatedBytesTotal: 0,
  reportedBytesTotal: 0,
  discardSecondsTotal: 0,
};

function cacheAlone(view: VmView): VmView {
  return { ...view, balloon: NO_BALLOON, cache: view.balloon };
}

/** What one device of a VM counts. */
function measuredAlone(vm: Vm): MeteredVm {
  if (vm.kind === 'balloon') return vm;
  const view = (): VmView => cacheAlone(vm.view());
  return { name: vm.name, meters: vm.meters, allocatedBytes: vm.allocatedBytes, pressure: vm.pressure, view };
}

function measuredTogether(vm: Vm, cache: Vm): MeteredVm {
  const meters = new VmMeters();
  meters.add(vm.meters);
  meters.add(cache.meters);
  const view = (): VmView => withCache(vm.view(), cache.view());
  return { name: vm.name, meters, allocatedBytes: vm.allocatedBytes, pressure: vm.pressure, view };
}

/** Two devices of one VMM are one VM. What is said of both is the traditional balloon's where it has something to say. */
function withCache(vm: VmView, cache: VmView | undefined): VmView {
  if (cache === undefined) return vm;
  return {
    ...vm,
    // The driver of one may never start.
    ramBytes: Math.max(vm.ramBytes, cache.ramBytes),
    cache: cache.balloon,
    inhibited: vm.inhibited ?? cache.inhibited,
    verdict: vm.verdict ?? cache.verdict,
    features: [...new Set([...vm.features, ...cache.features])],
    stats: vm.stats ?? cache.stats,
  };
}
