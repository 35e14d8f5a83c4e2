import type { VmView } from '../../protocol/control/schema.js';
import { RefusedError, type Fleet } from '../control/fleet.js';
import { peerName } from '../host/peer.js';
import type { EventLog } from '../ops/event-log.js';
import { peerCredentials } from '../os/socket.js';
import { deviceOptions, type ConfigFile, type SocketSettings } from './settings.js';
import { TargetError, Vm, type Target } from './vm.js';

/** All VMs by name. A connection becomes a VM by adopt() and leaves by itself when it ends. */
export class VmFleet implements Fleet {
  readonly #vms = new Map<string, Vm>();
  readonly #config: ConfigFile;
  readonly #events: EventLog;

  constructor(config: ConfigFile, events: EventLog) {
    this.#config = config;
    this.#events = events;
  }

  /** Serves the VMM at the other end of the connected socket `fd`, which belongs to the fleet from then on. */
  adopt(fd: number, socket: SocketSettings | null): void {
    const { pid } = peerCredentials(fd);
    const name = this.#freeName(socket?.name ?? peerName(pid) ?? `pid-${pid}`);
    const options = deviceOptions(this.#config, socket, name);
    const vm = new Vm(name, pid, fd, options, this.#events.emit, () => {
      this.#vms.delete(name);
      this.#events.forget(name);
    });
    this.#vms.set(name, vm);
    this.#events.emit('vm-connected', 'a VMM connected', { pid, features: options.features }, name);
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
