/** The VMs of this daemon by name. */
import type { AnyKind } from '../vm/kinds.js';
import type { Vm } from '../vm/vm.js';

export class VmMap {
  readonly #vms = new Map<string, Vm>();

  get size(): number {
    return this.#vms.size;
  }

  get(name: string): Vm | undefined {
    return this.#vms.get(name);
  }

  has(name: string): boolean {
    return this.#vms.has(name);
  }

  /** All there are now, in the order in which they came. */
  all(): Vm[] {
    return [...this.#vms.values()];
  }

  /** The VM of that process, where it has no device of that kind yet. */
  lacking(kind: AnyKind, pid: number): Vm | undefined {
    return this.all().find((vm) => pid > 0 && vm.pid === pid && vm.device(kind) === undefined);
  }

  /** The name, or where a VM has it, the name with a number behind it. */
  freeName(wanted: string): string {
    let name = wanted;
    for (let n = 2; this.#vms.has(name); n++) name = `${wanted}-${n}`;
    return name;
  }

  put(vm: Vm): void {
    this.#vms.set(vm.name, vm);
  }

  /** False where it is not there, or another VM has its name. */
  remove(vm: Vm): boolean {
    return this.#vms.get(vm.name) === vm && this.#vms.delete(vm.name);
  }
}
