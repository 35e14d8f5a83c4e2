import { freemem, totalmem } from 'node:os';
import type { LiveTick } from '../../protocol/control/live.js';
import type { LimitRequest, PolicyChange, PolicyState, VmView } from '../../protocol/control/schema.js';
import { RefusedError, type Fleet } from '../control/fleet.js';
import { peerName } from '../host/peer.js';
import { StateError, StateFile } from '../memory/state-file.js';
import type { EventLog } from '../ops/event-log.js';
import { Metrics } from '../ops/metrics.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { peerCredentials } from '../os/socket.js';
import { LimitError } from './limits.js';
import { PinWatch } from './pin-watch.js';
import { PolicyEngine } from './policy-engine.js';
import { PolicySettings } from '../policy/settings.js';
import { deviceOptions, isOfferable, type ConfigFile, type SocketSettings } from './settings.js';
import { decodeVmRecord, identifyVm } from './vm-record.js';
import { TargetError, Vm, type Target, type VmHandOver, type VmIdentity } from './vm.js';

/** A VM that a daemon before this one served, and that waits for one that can go on with it. */
export interface LeftAlone {
  /** The name that its connection is kept by, where that can be told. */
  connection: string | null;
}

export interface FleetOptions {
  /** Of the daemon. */
  version?: string;
  pinCheckMs?: number;
}

/** All VMs by name. A connection becomes a VM by adopt() and leaves by itself when it ends. */
export class VmFleet implements Fleet {
  readonly #vms = new Map<string, Vm>();
  readonly #config: ConfigFile;
  readonly #events: EventLog;
  readonly #keeper: FdKeeper;
  readonly #pinWatch: PinWatch;
  readonly #metrics: Metrics;
  readonly #policy: PolicyEngine;

  constructor(
    config: ConfigFile,
    events: EventLog,
    keeper: FdKeeper,
    { version = '0', pinCheckMs }: FleetOptions = {},
  ) {
    this.#config = config;
    this.#events = events;
    this.#keeper = keeper;
    this.#pinWatch = new PinWatch(this.#vms, pinCheckMs);
    this.#metrics = new Metrics(this.#vms, version);
    this.#policy = new PolicyEngine(new PolicySettings(config), () => [...this.#vms.values()], events.emit);
  }

  /** Serves the VMM at the other end of the connected socket `fd`, which belongs to the fleet from then on. */
  adopt(fd: number, socket: SocketSettings | null): void {
    this.#keeper.keep(fd, 'connection');
    const { pid } = peerCredentials(fd);
    const name = this.#freeName(socket?.name ?? peerName(pid) ?? `pid-${pid}`);
    const options = deviceOptions(this.#config, socket, name);
    const state = StateFile.create();
    const identity = { name, pid, socketPath: socket?.path ?? null, options };
    const vm = this.#serve(fd, identity, { keeper: this.#keeper, state, found: null });
    // Now that it has a record.
    this.#keeper.keep(state.fd, 'state');
    this.#events.emit('vm-connected', 'a VMM connected', { pid, features: options.features }, name);
    vm.checkPinned();
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
        features: found.features.filter(isOfferable),
      };
      const identity = { name: this.#freeName(name), pid: found.pid, socketPath: found.socket, options };
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
        `a VM cannot be gone on with: ${wrong}`,
        {},
        known.name ?? undefined,
      );
      return { connection: known.connection };
    }
  }

  /** Whether no discard has been under way for longer than that. */
  discardsMove(withinMs: number): boolean {
    return [...this.#vms.values()].every((vm) => vm.discardingMs < withinMs);
  }

  get size(): number {
    return this.#vms.size;
  }

  metrics(): Promise<string> {
    return this.#metrics.text();
  }

  live(): LiveTick {
    return {
      time: Date.now(),
      hostTotalBytes: totalmem(),
      hostAvailableBytes: freemem(),
      vms: [...this.#vms.values()].map((vm) => {
        const { name, state, ramBytes, balloon, policy, verdict } = this.#view(vm);
        return {
          name,
          state,
          band: policy?.band ?? null,
          ramBytes,
          targetBytes: balloon.targetBytes,
          actualBytes: balloon.actualBytes,
          allocatedBytes: vm.allocatedBytes,
          verdict,
        };
      }),
    };
  }

  list(): VmView[] {
    return [...this.#vms.values()].map((vm) => this.#view(vm));
  }

  find(name: string): VmView | undefined {
    const vm = this.#vms.get(name);
    return vm === undefined ? undefined : this.#view(vm);
  }

  setTarget(name: string, target: Target): VmView {
    const vm = this.#vm(name);
    try {
      vm.setTarget(target);
    } catch (error) {
      if (error instanceof TargetError) throw new RefusedError(error.message);
      throw error;
    }
    return this.#view(vm);
  }

  async setLimits(name: string, limits: LimitRequest): Promise<VmView> {
    const vm = this.#vm(name);
    try {
      await vm.limits.request(limits);
    } catch (error) {
      if (error instanceof LimitError) throw new RefusedError(error.message);
      throw error;
    }
    return this.#view(vm);
  }

  async refreshStats(name: string, timeoutMs: number): Promise<VmView> {
    const vm = this.#vm(name);
    if (!vm.view().features.includes('VIRTIO_BALLOON_F_STATS_VQ')) {
      throw new RefusedError(`${name} has no statistics: its driver did not ack VIRTIO_BALLOON_F_STATS_VQ`);
    }
    if (!(await vm.refreshStats(timeoutMs))) {
      throw new RefusedError(
        `${name} did not send statistics within ${timeoutMs / 1000} s: see \`balloonctl show ${name}\` for its state`,
      );
    }
    return this.#view(vm);
  }

  async setInhibited(name: string, reason: string | null): Promise<VmView> {
    const vm = this.#vm(name);
    await vm.setInhibited(reason);
    return this.#view(vm);
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
    for (const vm of [...this.#vms.values()]) vm.close();
  }

  #serve(fd: number, identity: VmIdentity, handOver: VmHandOver): Vm {
    const { name } = identity;
    const vm = new Vm(fd, identity, handOver, this.#events.emit, () => {
      this.#vms.delete(name);
      this.#metrics.forget(vm);
      this.#events.forget(name);
    });
    this.#vms.set(name, vm);
    this.#pinWatch.wake();
    return vm;
  }

  #view(vm: Vm): VmView {
    const view = vm.view();
    return { ...view, policy: this.#policy.vmView(vm, view.ramBytes) };
  }

  #vm(name: string): Vm {
    const vm = this.#vms.get(name);
    if (vm === undefined) throw new RefusedError(`there is no VM ${name}`);
    return vm;
  }

  #freeName(wanted: string): string {
    let name = wanted;
    for (let n = 2; this.#vms.has(name); n++) name = `${wanted}-${n}`;
    return name;
  }
}
