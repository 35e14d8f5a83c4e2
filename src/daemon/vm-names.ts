/**
 * The names of VMs, by which orders hold. A VM is called as its VMM calls it. Where another VM of this host has that name, it gets
 * a number behind it, and is known by its process and its UUID from then on: for as long as both live, neither gets the name of
 * the other, whichever of them the daemon meets first. The book has these notes over restarts of the daemon.
 */
import { processId, isRunning } from '../host/process-id.js';
import type { NamedVm, OrderBook } from '../vm/order-book.js';
import type { VmMap } from './vm-map.js';

interface NamesOptions {
  readonly book: OrderBook;
  readonly vms: Pick<VmMap, 'has'>;
  /** The folder of processes. */
  readonly proc: string;
}

/** A VM that comes, by the words of its VMM. */
interface ComingVm {
  readonly wanted: string;
  readonly pid: number;
  /** Null: not known. */
  readonly uuid: string | null;
  /** Its name is noted in any case, as the VM may be away from the daemon for a while. */
  readonly comesAgain: boolean;
}

export class VmNames {
  readonly #options: NamesOptions;

  constructor(options: NamesOptions) {
    this.#options = options;
  }

  /** The name by which the VM is called from now on. */
  choose({ wanted, pid, uuid, comesAgain }: ComingVm): string {
    const { book, vms, proc } = this.#options;
    const process = processId(proc, pid);
    if (process === null) return this.#free(wanted, []);
    const isOwn = (one: NamedVm): boolean => one.process === process || (uuid !== null && one.uuid === uuid);
    const known = book.named.find((one) => isOwn(one) && one.wanted === wanted && !vms.has(one.name));
    const others = book.named.filter((one) => !isOwn(one));
    const name = known?.name ?? this.#free(wanted, others);
    if (!comesAgain && name === wanted) return name;
    const noted = { process, name, wanted, ...(uuid !== null && { uuid }) };
    // A VM that had another name before has no claim to it any more.
    const rest = book.named.filter((one) => !isOwn(one) || vms.has(one.name));
    book.name([...rest.filter((one) => one.name !== name), noted]);
    return name;
  }

  /**
   * Forgets VMs that ended, with the orders for a name that the daemon made up. A VM with a UUID is known again when it is
   * switched on, so its orders wait.
   */
  tidy(): void {
    const { book, proc } = this.#options;
    const gone = book.named.filter(({ process }) => !isRunning(proc, process));
    const waits = ({ name, wanted, uuid }: NamedVm): boolean =>
      uuid !== undefined && name !== wanted && book.hasOrders(name);
    const forgotten = gone.filter((one) => !waits(one));
    if (forgotten.length === 0) return;
    for (const { name, wanted } of forgotten) if (name !== wanted) book.change(name, {});
    book.name(book.named.filter((one) => !forgotten.includes(one)));
  }

  /** Names with a number are made up, and so must not be those of VMs that have orders and are not there. */
  #free(wanted: string, others: readonly NamedVm[]): string {
    const { book, vms, proc } = this.#options;
    // A look at each process costs a read of its file.
    const isNoted = (one: NamedVm): boolean => one.name !== one.wanted || isRunning(proc, one.process);
    const isTaken = (name: string): boolean =>
      vms.has(name) || others.some((one) => one.name === name && isNoted(one));
    if (!isTaken(wanted)) return wanted;
    for (let n = 2; ; n++) {
      const name = `${wanted}-${n}`;
      if (!isTaken(name) && !book.hasOrders(name)) return name;
    }
  }
}
