import type { VmView } from '../../protocol/control/schema.js';
import { RefusedError, type Fleet } from '../control/fleet.js';
import { peerName } from '../host/peer.js';
import { StateError, StateFile } from '../memory/state-file.js';
import type { EventLog } from '../ops/event-log.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { peerCredentials } from '../os/socket.js';
import { PinWatch } from './pin-watch.js';
import { deviceOptions, isOfferable, type ConfigFile, type SocketSettings } from './settings.js';
import { decodeVmRecord } from './vm-record.js';
import { TargetError, Vm, type Target, type VmHandOver, type VmIdentity } from './vm.js';

/** All VMs by name. A connection becomes a VM by adopt() and leaves by itself when it ends. */
export class VmFleet implements Fleet {
  readonly #vms = new Map<string, Vm>();
  #config: ConfigFile;
  readonly #events: EventLog;
  readonly #keeper: FdKeeper;
  readonly #pinWatch: PinWatch;

  constructor(config: ConfigFile, events: EventLog, keeper: FdKeeper, pinCheckMs?: number) {
    this.#config = config;
    this.#events = events;
    this.#keeper = keeper;
    this.#pinWatch = new PinWatch(this.#vms, pinCheckMs);
  }

  /** What VMs that connect from now on get. */
  configure(config: ConfigFile): void {
    this.#config = config;
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
   * Goes on with the VM whose state file a daemon before this one left in `fd`. False, with everything left as it was,
   * when that cannot be.
   */
  resume(fd: number): boolean {
    let name: string | undefined;
    let state: StateFile | null = null;
    try {
      state = StateFile.open(fd);
      const found = decodeVmRecord(state.record());
      name = found.name;
      const connection = this.#keeper.claim(found.connection);
      if (connection === null) {
        this.#events.emit('vm-disconnected', 'the VMM ended while no daemon ran', {}, name);
        state.close();
        return true;
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
      return true;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      state?.letGo();
      const wrong = error instanceof StateError ? error.message : (error.stack ?? error.message);
      this.#events.emit('resume-failed', `a VM cannot be gone on with: ${wrong}`, {}, name);
      return false;
    }
  }

  /** Whether no discard has been under way for longer than that. */
  discardsMove(withinMs: number): boolean {
    return [...this.#vms.values()].every((vm) => vm.discardingMs < withinMs);
  }

  get size(): number {
    return this.#vms.size;
  }

  list(): VmView[] {
    return [...this.#vms.values()].map((vm) => vm.view());
  }

  find(name: string): VmView | undefined {
    return this.#vms.get(name)?.view();
  }

  setTarget(name: string, target: Target): VmView {
    const vm = this.#vm(name);
    try {
      vm.setTarget(target);
    } catch (error) {
      if (error instanceof TargetError) throw new RefusedError(error.message);
      throw error;
    }
    return vm.view();
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
    return vm.view();
  }

  async setInhibited(name: string, reason: string | null): Promise<VmView> {
    const vm = this.#vm(name);
    await vm.setInhibited(reason);
    return vm.view();
  }

  close(): void {
    for (const vm of [...this.#vms.values()]) vm.close();
  }

  #serve(fd: number, identity: VmIdentity, handOver: VmHandOver): Vm {
    const { name } = identity;
    const vm = new Vm(fd, identity, handOver, this.#events.emit, () => {
      this.#vms.delete(name);
      this.#events.forget(name);
    });
    this.#vms.set(name, vm);
    this.#pinWatch.wake();
    return vm;
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
