/** All VMs of this daemon, and the policy that shares memory between them. */
import type { DaemonView } from '../../protocol/control/schema.js';
import { HOST_PATHS, type HostPaths } from '../host/host-paths.js';
import { DomainProcesses } from '../host/domain-process.js';
import { mayPin } from '../host/pinned.js';
import { PolicyEngine } from '../governor/tick.js';
import type { EventLog } from '../ops/event-log.js';
import { Metrics } from '../ops/metrics.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { PolicySettings } from '../policy/settings.js';
import { withPart } from '../vm/any-device.js';
import { metered } from '../vm/metered.js';
import type { AdoptedDevice } from '../vm/adopted-device.js';
import type { Vm } from '../vm/vm.js';
import type { Adoptable } from './adoption.js';
import { Arrivals, type LeftAlone } from './arrivals.js';
import { FleetControl } from './fleet-control.js';
import { LibvirtDomains } from './libvirt-domains.js';
import { OrderFiles } from './order-files.js';
import { PinWatch } from './pin-watch.js';
import { QmpSockets } from './qmp-sockets.js';
import {
  libvirtSettings,
  policyAfterReload,
  qmpPatterns,
  type ConfigFile,
  type SocketSettings,
} from './settings.js';
import { VmMap } from './vm-map.js';

interface FleetOptions {
  /** Of the daemon. */
  version?: string;
  pinCheckMs?: number;
  paths?: HostPaths;
  orders?: OrderFiles;
  /** The paths of the sockets on which the daemon itself listens. */
  ownSockets?: () => readonly string[];
}

export class VmFleet {
  /** What the servers ask and command. */
  readonly control: FleetControl;
  readonly #vms = new VmMap();
  readonly #arrivals: Arrivals;
  readonly #started: ConfigFile;
  readonly #policy: PolicyEngine;
  readonly #qmp: QmpSockets;
  readonly #libvirt: LibvirtDomains;

  constructor(
    config: ConfigFile,
    events: EventLog,
    keeper: FdKeeper,
    {
      version = '0',
      pinCheckMs,
      paths = HOST_PATHS,
      orders = new OrderFiles(null, null),
      ownSockets = () => [],
    }: FleetOptions = {},
  ) {
    this.#started = config;
    orders.listen(events.emit);
    const settings = new PolicySettings(config);
    const all = (): Vm[] => this.#vms.all();
    const pinWatch = new PinWatch(all, () => mayPin(paths.proc), pinCheckMs);
    this.#arrivals = new Arrivals(config, this.#vms, {
      events,
      keeper,
      paths,
      book: orders.book,
      policyActs: () => this.#policy.acts,
      came: () => pinWatch.wake(),
      gone: (vm, device) => metrics.forget(metered(vm, withPart(device))),
    });
    this.#policy = new PolicyEngine(settings, all, events.emit, {
      paths,
      book: orders.book,
    });
    const metrics = new Metrics(
      () => all().map((vm) => metered(vm)),
      version,
      () => this.#policy.measures(),
      events.counts,
    );
    const adoption = {
      emit: events.emit,
      make: (adoptable: Adoptable) => this.#arrivals.take(adoptable),
      nameOf: (device: AdoptedDevice) => all().find(({ devices }) => devices.includes(device))?.name ?? null,
    };
    this.#qmp = new QmpSockets({ ...adoption, book: orders.book, ownSockets });
    this.#libvirt = new LibvirtDomains({
      ...adoption,
      book: orders.book,
      processes: new DomainProcesses(paths),
      serves: (pid) => all().some((vm) => vm.pid === pid && vm.playing('balloon') !== undefined),
    });
    const adopted = { sockets: this.#qmp, domains: this.#libvirt };
    this.control = new FleetControl(this.#vms, this.#policy, orders, metrics, adopted, events.emit);
  }

  /**
   * What VMs that connect from now on get, what the policy goes by, what is ordered of VMs for good, and how often guests
   * are asked for statistics. `sockets` are those that are listened on; a VM of another one stays as it is.
   */
  configure(config: ConfigFile, sockets: readonly SocketSettings[]): void {
    this.#arrivals.configure(config, sockets);
    this.#qmp.configure(qmpPatterns(config));
    this.#libvirt.configure(libvirtSettings(config));
    this.#policy.configure(new PolicySettings(policyAfterReload(this.#started, config)));
  }

  adopt(fd: number, socket: SocketSettings | null): void {
    this.#arrivals.adopt(fd, socket);
  }

  resume(fd: number): LeftAlone | null {
    return this.#arrivals.resume(fd);
  }

  /** Whether no discard has been under way for longer than that. */
  discardsMove(withinMs: number): boolean {
    return this.#vms.all().every(({ discardingMs }) => discardingMs < withinMs);
  }

  /** What keeps the daemon from VMs that it is to adopt, and the policy from its reserve. */
  get problems(): DaemonView['problems'] {
    const { problem } = this.#libvirt;
    return [
      ...(problem === null ? [] : [{ part: 'libvirt' as const, ...problem }]),
      ...this.#policy.unmet.map((unmet) => ({ part: 'policy' as const, ...unmet })),
    ];
  }

  get size(): number {
    return this.#vms.size;
  }

  /** Begins to decide who gets the memory, when all VMs of the daemon before this one are back; adopted VMs come by themselves. */
  startPolicy(): void {
    this.#policy.start();
    this.#qmp.configure(qmpPatterns(this.#started));
    this.#libvirt.configure(libvirtSettings(this.#started));
  }

  /** Lets go of VMs that were adopted, as the process ends. */
  async leave(): Promise<void> {
    await Promise.all([this.#qmp.leave(), this.#libvirt.leave()]);
  }

  close(): void {
    this.#policy.close();
    for (const vm of this.#vms.all()) vm.close();
  }
}
