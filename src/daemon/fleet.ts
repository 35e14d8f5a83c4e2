/** All VMs as the control server, metrics and the page see them, and the policy that shares memory between them. */
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
import { PolicyEngine } from '../governor/tick.js';
import { mayPin } from '../host/pinned.js';
import type { EventLog } from '../ops/event-log.js';
import { Metrics, type MeteredVm } from '../ops/metrics.js';
import { VmMeters } from '../ops/vm-meters.js';
import { wallNow } from '../os/clock.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { PolicySettings } from '../policy/settings.js';
import type { VmDevice } from '../vm/device.js';
import { sentence } from '../vm/diagnosis.js';
import { LimitError } from '../vm/limits-words.js';
import { inHand } from '../vm/orders.js';
import { vmView } from '../vm/view.js';
import { VmRefusal, type Vm } from '../vm/vm.js';
import { OrderFiles } from './order-files.js';
import { PinWatch } from './pin-watch.js';
import { policyAfterReload, type ConfigFile, type SocketSettings } from './settings.js';
import { VmMap, type LeftAlone } from './vm-map.js';

export type { LeftAlone } from './vm-map.js';

export interface FleetOptions {
  /** Of the daemon. */
  version?: string;
  pinCheckMs?: number;
  paths?: HostPaths;
  orders?: OrderFiles;
}

export class VmFleet implements Fleet {
  readonly #vms: VmMap;
  readonly #started: ConfigFile;
  readonly #orders: OrderFiles;
  readonly #metrics: Metrics;
  readonly #policy: PolicyEngine;

  constructor(
    config: ConfigFile,
    events: EventLog,
    keeper: FdKeeper,
    { version = '0', pinCheckMs, paths = HOST_PATHS, orders = new OrderFiles(null, null) }: FleetOptions = {},
  ) {
    this.#started = config;
    this.#orders = orders;
    orders.listen(events.emit);
    const all = (): Vm[] => [...this.#vms.values()];
    const pinWatch = new PinWatch(all, () => mayPin(paths.proc), pinCheckMs);
    this.#vms = new VmMap(config, {
      events,
      keeper,
      paths,
      book: orders.book,
      came: () => pinWatch.wake(),
      gone: (vm, device) => this.#metrics.forget(metered(vm, [device])),
    });
    this.#policy = new PolicyEngine(new PolicySettings(config), all, events.emit, {
      paths,
      book: orders.book,
    });
    this.#metrics = new Metrics(
      () => all().map((vm) => metered(vm)),
      version,
      () => this.#policy.measures(),
      events.counts,
    );
  }

  /**
   * What VMs that connect from now on get, what the policy goes by, what is ordered of VMs for good, and how often guests
   * are asked for statistics. `sockets` are those that are listened on; a VM of another one stays as it is.
   */
  configure(config: ConfigFile, sockets: readonly SocketSettings[]): void {
    this.#vms.configure(config, sockets);
    this.#policy.configure(new PolicySettings(policyAfterReload(this.#started, config)));
  }

  adopt(fd: number, socket: SocketSettings | null): void {
    this.#vms.adopt(fd, socket);
  }

  resume(fd: number): LeftAlone | null {
    return this.#vms.resume(fd);
  }

  /** Whether no discard has been under way for longer than that. */
  discardsMove(withinMs: number): boolean {
    return [...this.#vms.values()].every(({ discardingMs }) => discardingMs < withinMs);
  }

  get size(): number {
    return this.#vms.size;
  }

  /** Begins to decide who gets the memory, when all VMs of the daemon before this one are back. */
  startPolicy(): void {
    this.#policy.start();
  }

  close(): void {
    this.#policy.close();
    for (const vm of [...this.#vms.values()]) vm.close();
  }

  metrics(): Promise<Buffer> {
    return this.#metrics.text();
  }

  live(): LiveTick {
    return {
      time: wallNow(),
      hostTotalBytes: totalmem(),
      hostAvailableBytes: freemem(),
      vms: [...this.#vms.values()].map((vm) => {
        const { targetBytes, actualBytes } = vm.figures;
        const { diagnosis } = vm;
        return {
          name: vm.name,
          state: vm.devices[0]?.figures.state ?? 'connected',
          band: this.#policy.vmView(vm)?.band ?? null,
          ramBytes: vm.ramBytes,
          targetBytes,
          actualBytes,
          cacheBytes: vm.playing('cache')?.figures.actualBytes ?? null,
          allocatedBytes: vm.allocatedBytes,
          verdict: diagnosis && sentence(diagnosis),
        };
      }),
    };
  }

  list(): VmView[] {
    return [...this.#vms.values()].map((vm) => this.#view(vm));
  }

  find(name: string): VmView | undefined {
    const vm = this.#vms.get(name);
    return vm && this.#view(vm);
  }

  names(): readonly string[] {
    return [...this.#vms.values()].map(({ name }) => name);
  }

  setTarget(name: string, target: TargetRequest): Promise<VmView> {
    return this.#order(name, (vm) => vm.setTarget(target));
  }

  setLimits(name: string, limits: LimitRequest): Promise<VmView> {
    return this.#order(name, (vm) => vm.setLimits(limits));
  }

  setInhibited(name: string, reason: string | null): Promise<VmView> {
    return this.#order(name, (vm) => vm.setInhibited(reason));
  }

  setStatsInterval(name: string, seconds: number): Promise<VmView> {
    return this.#order(name, (vm) => (vm.statsIntervalSeconds = seconds));
  }

  refreshStats(name: string, timeoutMs: number): Promise<VmView> {
    return this.#order(name, (vm) => vm.refreshStats(timeoutMs));
  }

  policy(): PolicyState {
    return this.#policy.view();
  }

  async changePolicy(change: PolicyChange): Promise<PolicyState> {
    const vm = change.vm === undefined ? undefined : this.#vms.get(change.vm);
    if (vm !== undefined && !change.paused && vm.wishes.manual && !inHand(vm.orders)) {
      throw new RefusedError(
        `the configuration keeps the policy away from ${vm.name}: set no policy and no target in its [[vm]], then run balloonctl reload`,
      );
    }
    const state = this.#policy.change(change);
    for (const one of this.#vms.values()) one.pauseChanged();
    await this.#orders.kept();
    return state;
  }

  #view(vm: Vm): VmView {
    return vmView(vm, this.#policy.vmView(vm));
  }

  /** Resolves with the VM as it is then, when what it was ordered is kept. */
  async #order(name: string, order: (vm: Vm) => unknown): Promise<VmView> {
    const vm = this.#vms.get(name);
    try {
      if (vm !== undefined) await order(vm);
    } catch (error) {
      if (error instanceof VmRefusal || error instanceof LimitError) throw new RefusedError(error.message);
      throw error;
    }
    await this.#orders.kept();
    const now = this.#vms.get(name);
    if (now === undefined) throw new RefusedError(`there is no VM ${name}: see balloonctl list`);
    return this.#view(now);
  }
}

/** What is measured of a VM, or of one of its devices. */
function metered(vm: Vm, devices: readonly VmDevice[] = vm.devices): MeteredVm {
  const [first, ...others] = devices;
  // Nearly all VMs have one device, and a scrape reads a thousand of them.
  const meters = first !== undefined && others.length === 0 ? first.meters : new VmMeters();
  if (meters !== first?.meters) for (const device of devices) meters.add(device.meters);
  return {
    name: vm.name,
    meters,
    allocatedBytes: vm.allocatedBytes,
    pressure: vm.cgroup.pressure(),
    view: () => vmView(vm, null, devices),
  };
}
