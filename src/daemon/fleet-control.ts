/** The fleet as the control server, the metrics server and the page see it: all VMs and the policy, and orders for them. */
import { refusal } from '../../protocol/control/refusal.js';
import { vmCommand } from '../../protocol/control/vm-command.js';
import { freemem, totalmem } from 'node:os';
import { byName } from '../../protocol/control/limits.js';
import type { LiveTick } from '../../protocol/control/live.js';
import type {
  AdoptChange,
  AdoptedSocket,
  LimitRequest,
  PolicyAdvice,
  PolicyChange,
  PolicyState,
  TargetRequest,
  VmOrders,
  VmView,
} from '../../protocol/control/schema.js';
import { RefusedError, type Fleet } from '../control/fleet.js';
import type { PolicyEngine } from '../governor/tick.js';
import type { Emit } from '../ops/event-log.js';
import type { Metrics } from '../ops/metrics.js';
import { wallNow } from '../os/clock.js';
import { liveView } from '../vm/live-view.js';
import { inHand, NO_WISHES, orderViews, releaseView } from '../vm/orders.js';
import { ordersOf, vmTried, vmView } from '../vm/view.js';
import type { Vm } from '../vm/vm.js';
import type { OrderFiles } from './order-files.js';
import { domainOf, type LibvirtDomains } from './libvirt-domains.js';
import type { QmpSockets } from './qmp-sockets.js';
import type { VmMap } from './vm-map.js';

interface AdoptedVms {
  readonly sockets: QmpSockets;
  readonly domains: LibvirtDomains;
}

export class FleetControl implements Fleet {
  readonly #vms: VmMap;
  readonly #policy: PolicyEngine;
  readonly #orders: OrderFiles;
  readonly #metrics: Metrics;
  readonly #adopted: AdoptedVms;
  readonly #emit: Emit;

  constructor(
    vms: VmMap,
    policy: PolicyEngine,
    orders: OrderFiles,
    metrics: Metrics,
    adopted: AdoptedVms,
    emit: Emit,
  ) {
    this.#vms = vms;
    this.#policy = policy;
    this.#orders = orders;
    this.#metrics = metrics;
    this.#adopted = adopted;
    this.#emit = emit;
  }

  metrics(): Promise<Buffer> {
    return this.#metrics.text();
  }

  live(): LiveTick {
    return {
      time: wallNow(),
      hostTotalBytes: totalmem(),
      hostAvailableBytes: freemem(),
      policy: this.#policy.live(),
      vms: this.#vms.all().map((vm) => liveView(vm, this.#policy.liveVm(vm))),
    };
  }

  list(): VmView[] {
    return this.#vms.all().map((vm) => this.#view(vm));
  }

  find(name: string): VmView | undefined {
    const vm = this.#vms.get(name);
    return vm && this.#view(vm);
  }

  names(): readonly string[] {
    return this.#vms.all().map(({ name }) => name);
  }

  setTarget(name: string, target: TargetRequest): Promise<VmView> {
    return this.#order(name, (vm) => vm.setTarget(target));
  }

  tryTarget(name: string, target: TargetRequest): VmView {
    const vm = this.#vms.get(name);
    if (vm === undefined) throw gone(name);
    return vmTried(this.#view(vm), vm, target);
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

  orders(): VmOrders[] {
    const { book } = this.#orders;
    const names = new Set([...this.names(), ...book.names, ...book.released.keys()]);
    return [...names].map((name) => this.ordersOf(name)).filter(({ orders }) => orders.length > 0);
  }

  async takeBackOrders(name: string): Promise<VmOrders> {
    const { book } = this.#orders;
    const vm = this.#vms.get(name);
    const all = this.ordersOf(name);
    const taken = { ...all, orders: all.orders.filter(({ by }) => by === 'operator') };
    if (vm === undefined) book.change(name, {});
    else {
      const { inhibit, limits } = vm.orders;
      vm.manual = false;
      if (inhibit !== undefined) await vm.setInhibited(null);
      if (limits !== undefined) await vm.setLimits(byName(() => 'restore'));
    }
    const { sockets, domains } = this.#adopted;
    for (const way of [sockets, domains]) way.takeBack(name);
    if (taken.orders.length > 0) {
      const says = taken.orders.map((one) => one.says).join('; ');
      this.#emit(
        'orders-taken-back',
        `an operator took back: ${says}`,
        { orders: taken.orders.length },
        name,
      );
    }
    await this.#orders.kept();
    return taken;
  }

  adopted(): AdoptedSocket[] {
    return [...this.#adopted.sockets.list(), ...this.#adopted.domains.list()];
  }

  async changeAdopted({ path, adopted }: AdoptChange): Promise<AdoptedSocket> {
    const { sockets, domains } = this.#adopted;
    const name = domainOf(path);
    const [from, which] = name === null ? [sockets, path] : [domains, name];
    const view = await (adopted ? from.adopt(which) : from.release(which));
    await this.#orders.kept();
    return view;
  }

  policy(): PolicyState {
    return this.#policy.view();
  }

  advice(): PolicyAdvice {
    return this.#policy.advice();
  }

  async changePolicy(change: PolicyChange): Promise<PolicyState> {
    if ('mode' in change) {
      const state = this.#policy.changeMode(change.mode);
      await this.#orders.kept();
      return state;
    }
    const vm = change.vm === undefined ? undefined : this.#vms.get(change.vm);
    if (vm !== undefined && !change.paused && vm.wishes.manual && !inHand(vm.orders)) {
      throw new RefusedError(
        refusal(
          `the configuration keeps the policy away from ${vm.name}`,
          'set no policy and no target in its [[vm]], then run balloonctl reload',
        ),
      );
    }
    const state = this.#policy.change(change);
    for (const one of this.#vms.all()) one.pauseChanged();
    await this.#orders.kept();
    return state;
  }

  /** Most commands that take an order back need the VM: one that is not connected has one for all of them. */
  ordersOf(name: string): VmOrders {
    const vm = this.#vms.get(name);
    const since = this.#orders.book.released.get(name);
    const released = since === undefined ? [] : [releaseView(name, since)];
    if (vm !== undefined) return { vm: name, connected: true, orders: [...ordersOf(vm), ...released] };
    const undo = vmCommand('balloonctl orders', name, '--take-back');
    const absent = { name, ramBytes: 0, has: () => true, cut: () => null };
    const views = orderViews(absent, this.#orders.book.of(name), NO_WISHES);
    const orders = [...views.map((view) => ({ ...view, undo })), ...released];
    return { vm: name, connected: false, orders };
  }

  #view(vm: Vm): VmView {
    return vmView(vm, this.#policy.vmView(vm));
  }

  /** Resolves with the VM as it is then, when what it was ordered is kept. */
  async #order(name: string, order: (vm: Vm) => unknown): Promise<VmView> {
    const vm = this.#vms.get(name);
    if (vm !== undefined) await order(vm);
    await this.#orders.kept();
    const now = this.#vms.get(name);
    if (now === undefined) throw gone(name);
    return this.#view(now);
  }
}

function gone(name: string): RefusedError {
  return new RefusedError(refusal(`there is no VM ${name}`, 'see balloonctl list'));
}
