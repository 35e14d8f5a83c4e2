/**
 * Connections that become devices of VMs: by adopt(), or by resume() where a daemon before this one served them. A VM is
 * made for the first of its devices, and leaves by itself when its last one does.
 */
import type { AdoptedVmm } from '../../protocol/adopted.js';
import { RETURNS_STEP } from '../../protocol/control/events.js';
import { refusal, type NextStep } from '../../protocol/control/refusal.js';
import { RefusedError } from '../control/fleet.js';
import { HOST_PATHS, type HostPaths } from '../host/host-paths.js';
import { cleanName, hasUuid, peerName, wellFormed } from '../host/peer.js';
import { processId } from '../host/process-id.js';
import { StateError, StateFile } from '../memory/state-file.js';
import type { EventLog } from '../ops/event-log.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { peerPid } from '../os/socket.js';
import type { AnyDevice } from '../vm/any-device.js';
import { DEVICE_KINDS, isOfferable, KINDS, type AnyKind } from '../vm/kinds.js';
import type { OrderBook } from '../vm/order-book.js';
import { AdoptedDevice } from '../vm/adopted-device.js';
import { decodeVmRecord, identifyVm } from '../vm/record.js';
import { Vm } from '../vm/vm.js';
import type { Adoptable } from './adoption.js';
import { deviceOptions, vmWishes, type ConfigFile, type SocketSettings } from './settings.js';
import { Returns } from './returns.js';
import type { VmMap } from './vm-map.js';
import { VmNames } from './vm-names.js';

/** A process whose connection ended is looked for so much later. */
const ENDED_MS = 5000;

/** A VM that a daemon before this one served, and that waits for one that can go on with it. */
export interface LeftAlone {
  /** The name that its connection is kept by, where that can be told. */
  connection: string | null;
}

interface ArrivalOptions {
  readonly events: EventLog;
  readonly keeper: FdKeeper;
  readonly book: OrderBook;
  readonly policyActs: () => boolean;
  readonly paths?: HostPaths;
  /** A VM may be the first; a device, and perhaps its VM, is gone. */
  readonly came: () => void;
  readonly gone: (vm: Vm, device: AnyDevice) => void;
}

export class Arrivals {
  readonly #vms: VmMap;
  readonly #options: ArrivalOptions;
  readonly #returns = new Returns();
  readonly #names: VmNames;
  readonly #uuids = new WeakMap<Vm, string>();
  #tidying: NodeJS.Timeout | null = null;
  #config: ConfigFile;

  constructor(config: ConfigFile, vms: VmMap, options: ArrivalOptions) {
    this.#config = config;
    this.#vms = vms;
    this.#options = options;
    const { book, paths: { proc } = HOST_PATHS } = options;
    this.#names = new VmNames({ book, vms, proc });
  }

  /** What devices that connect from now on get, and what VMs that are there can be given. */
  configure(config: ConfigFile, sockets: readonly SocketSettings[]): void {
    this.#config = config;
    for (const vm of this.#vms.all()) {
      vm.configure(vmWishes(config, vm.name));
      for (const device of vm.devices) {
        const socket = sockets.find(({ path }) => path === device.socketPath);
        if (socket === undefined && device.socketPath !== null && KINDS[device.kind].sharesMemory) continue;
        device.statsIntervalSeconds = deviceOptions(config, socket ?? null, vm.name).statsIntervalSeconds;
      }
    }
  }

  /** Serves the VMM at the other end of the connected socket `fd`, which belongs to the VM from then on. */
  adopt(fd: number, socket: SocketSettings | null): void {
    const begun = performance.now();
    const { keeper, events } = this.#options;
    keeper.keep(fd, 'connection');
    const pid = peerPid(fd);
    const kind = socket?.device ?? 'balloon';
    const wanted = socket?.name ?? peerName(pid) ?? `pid-${pid}`;
    const vm = this.#vms.lacking(kind, pid) ?? this.#named({ wanted, pid, uuid: null, comesAgain: false });
    const options = deviceOptions(this.#config, socket, vm.name);
    const state = StateFile.create();
    const device = vm.attach(
      fd,
      { socketPath: socket?.path ?? null, options },
      { keeper, state, found: null },
    );
    this.#vms.put(vm);
    // Now that it has a record.
    keeper.keep(state.fd, 'state');
    const connected = `a VMM connected its ${device.words} (pid ${pid})`;
    events.emit('vm-connected', connected, { pid, features: options.features }, vm.name);
    this.#sayName(vm, wanted);
    if (vm.devices.length === 1) this.#sayReturns(wanted);
    vm.greet(device);
    this.#options.came();
    device.charge(performance.now() - begun);
    // The VM has a balloon that the daemon serves from now on.
    if (device.part !== 'balloon') return;
    for (const other of vm.devices) if (!KINDS[other.kind].sharesMemory) other.close();
  }

  /** Takes a balloon that QEMU serves itself. Throws RefusedError where the daemon moves a balloon of that VM already. */
  take({ way, vmm, seen, closed }: Adoptable): AdoptedDevice {
    const { events } = this.#options;
    const { pid, version, uuid } = vmm;
    const { kind, path, socketPath } = way;
    const other = this.#vms
      .all()
      .find((vm) => vm.playing('balloon') !== undefined && this.#isSame(vm, pid, uuid));
    if (other !== undefined) {
      throw new RefusedError(
        refusal(
          `${way.words} is ${other.name}, which has a balloon that the daemon moves already`,
          otherWay(other),
        ),
      );
    }
    const wanted = cleanName(vmm.name ?? undefined) ?? peerName(pid) ?? `pid-${pid}`;
    const vm = this.#vms.lacking(kind, pid) ?? this.#named({ wanted, pid, uuid, comesAgain: true });
    const { statsIntervalSeconds, sharedCgroup } = deviceOptions(this.#config, null, vm.name);
    const identity = { kind, socketPath, statsIntervalSeconds, closed, ...this.#noteInterval(vmm) };
    const device = new AdoptedDevice(vm, vmm, seen, identity, (event, message, fields) =>
      events.emit(event, message, fields, vm.name),
    );
    vm.join(device, sharedCgroup);
    if (uuid !== null) this.#uuids.set(vm, uuid);
    this.#vms.put(vm);
    const adopted = `the ${device.words} was adopted over ${KINDS[kind].overWords} (pid ${pid}, ${path}, ${version})`;
    events.emit('vm-connected', adopted, { pid, socket: path }, vm.name);
    this.#sayName(vm, wanted);
    vm.greet(device);
    device.start(seen);
    this.#options.came();
    return device;
  }

  /** Whether the QEMU is that of the VM: a socket may be made by another process, which hands it to QEMU. */
  #isSame(vm: Vm, pid: number, uuid: string | null): boolean {
    if (pid > 0 && vm.pid === pid) return true;
    if (uuid === null || this.#uuids.get(vm) !== uuid) return false;
    const { paths: { proc } = HOST_PATHS } = this.#options;
    // Copies of one command line are several VMs.
    return ![pid, vm.pid].every((one) => hasUuid(proc, one, uuid));
  }

  /** The interval of statistics that the QEMU was found with, by the daemon before this one or by this one. */
  #noteInterval({ pid, foundInterval: now }: AdoptedVmm): { foundInterval: number; putBack: () => void } {
    const { book, paths: { proc } = HOST_PATHS } = this.#options;
    const isThere = (one: string): boolean => processId(proc, parseInt(one, 10)) === one;
    const process = processId(proc, pid);
    if (process === null) return { foundInterval: now, putBack: () => undefined };
    const foundInterval = book.foundInterval(process) ?? now;
    book.noteInterval(process, foundInterval, isThere);
    return { foundInterval, putBack: () => book.noteInterval(process, null, isThere) };
  }

  /**
   * Goes on with the device whose state file a daemon before this one left in `fd`. When that cannot be, everything is left
   * as it was, and what is known of it returned.
   */
  resume(fd: number): LeftAlone | null {
    const { keeper, events } = this.#options;
    let known: ReturnType<typeof identifyVm> = { name: null, connection: null };
    let state: StateFile | null = null;
    try {
      state = StateFile.open(fd);
      known = identifyVm(state.record());
      const found = decodeVmRecord(state.record());
      const connection = keeper.claim(found.connection);
      if (connection === null) {
        events.emit('vm-disconnected', 'the VMM ended while no daemon ran', {}, found.name);
        state.close();
        return null;
      }
      const kind = found.device ?? DEVICE_KINDS[0];
      const socket = (this.#config.socket ?? []).find(({ path }) => path === found.socket) ?? null;
      const options = {
        ...deviceOptions(this.#config, socket, found.name),
        kind,
        features: found.features.filter(isOfferable),
      };
      const vm = this.#again(wellFormed(found.name), kind, found.pid);
      const handOver = { keeper, state, found };
      // It takes care of itself from here on.
      state = null;
      const device = vm.attach(connection, { socketPath: found.socket, options }, handOver);
      this.#vms.put(vm);
      vm.takeOver(device, found);
      this.#options.came();
      return null;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      state?.letGo();
      const wrong = error instanceof StateError ? error.message : (error.stack ?? error.message);
      const message = `the daemon cannot go on with a VM: ${wrong}`;
      events.emit('resume-failed', message, {}, known.name ?? undefined);
      return { connection: known.connection };
    }
  }

  #sayName(vm: Vm, wanted: string): void {
    if (vm.name === wanted || vm.devices.length > 1) return;
    const taken = `another VM of this host is called ${wanted}, so this one is ${vm.name}, and orders for ${wanted} do not hold for it`;
    this.#options.events.emit('name-taken', taken, { name: wanted }, vm.name);
  }

  #sayReturns(name: string): void {
    const returned = this.#returns.came(name);
    if (returned === null) return;
    const { times, seconds } = returned;
    const said = `a VM that is called ${name} connected ${times} times within ${seconds} s`;
    this.#options.events.emit('vm-returns', refusal(said, RETURNS_STEP), { times, seconds }, name);
  }

  #named(vm: Parameters<VmNames['choose']>[0]): Vm {
    return this.#make(this.#names.choose(vm), vm.pid);
  }

  #make(name: string, pid: number): Vm {
    const { events, book, paths = HOST_PATHS } = this.#options;
    return new Vm(name, pid, {
      emit: events.emit,
      book,
      paths,
      wishes: vmWishes(this.#config, name),
      policyActs: this.#options.policyActs,
      gone: (vm, device) => this.#gone(vm, device),
    });
  }

  #gone(vm: Vm, device: AnyDevice): void {
    this.#options.gone(vm, device);
    if (vm.devices.length > 0 || !this.#vms.remove(vm)) return;
    this.#options.book.forget(vm.name);
    // Its process ends after its connection.
    this.#tidying ??= setTimeout(() => this.#tidy(), ENDED_MS).unref();
    this.#options.events.forget(vm.name);
  }

  #tidy(): void {
    this.#tidying = null;
    this.#names.tidy();
  }

  /** The VM of a device that is gone on with. Older builds cut names within a character. */
  #again(name: string, kind: AnyKind, pid: number): Vm {
    const other = this.#vms.lacking(kind, pid);
    return other?.name === name ? other : this.#make(this.#vms.freeName(name), pid);
  }
}

/** The next step of an operator who wants to use another way to the VM. */
function otherWay(vm: Vm): NextStep {
  const device = vm.playing('balloon');
  if (device === undefined || KINDS[device.kind].sharesMemory)
    return "keep it so, because balloond's own device does more";
  const path = device.socketPath ?? `libvirt:${vm.name}`;
  return `keep one of the two ways, and to use this one, run balloonctl adopt --release ${path}, then adopt this one again`;
}
