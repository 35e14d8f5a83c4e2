import type { Emit } from '../ops/event-log.js';
import type { PolicySettings } from '../policy/settings.js';
import type { SeenVm } from './governed-vm.js';
import { PoolView } from './pool-view.js';
import type { Unmet } from './reserve-watch.js';
import { Stock, type StockView } from './stock.js';
import type { Troubles } from './troubles.js';

/** The VMs of one stock. */
export interface Members {
  readonly stock: Stock;
  readonly vms: readonly SeenVm[];
}

interface Division {
  /** The RAM of the host first, and only pools that VMs are in. */
  readonly members: readonly Members[];
  /** The names of VMs that are there no more. */
  readonly gone: readonly string[];
  /** VMs whose memory was in another stock before. */
  readonly moved: readonly SeenVm[];
}

/** All stocks: the RAM of the host, and each pool that VMs are in. */
export class Stocks {
  readonly ram: Stock;
  readonly #folder: string;
  readonly #troubles: Troubles;
  /** By the size of their pages. */
  readonly #pools = new Map<number, Stock>();
  /** The stock of each VM by its name. */
  readonly #homes = new Map<string, Stock>();

  /** `folder` is that of the kernel's pools. */
  constructor(ram: StockView, folder: string, troubles: Troubles) {
    this.ram = new Stock(ram);
    this.#folder = folder;
    this.#troubles = troubles;
  }

  /** The pools that VMs are in, by the size of their pages. */
  get pools(): readonly Stock[] {
    return [...this.#pools].sort(([a], [b]) => a - b).map(([, stock]) => stock);
  }

  /** Why the VMs of a stock cannot give its reserve, for each of which that holds. */
  get unmet(): readonly Unmet[] {
    return [this.ram, ...this.pools].flatMap(({ unmet }) => unmet ?? []);
  }

  /** The stock that the VM of this name was in at the last division; where there was no such VM, that of the pool or the RAM. */
  of(name: string, poolPageBytes: number | null = null): Stock {
    return this.#homes.get(name) ?? this.#home(poolPageBytes);
  }

  /** Puts each VM into its stock; the rows of the rosters are these VMs from now on. */
  divide(vms: readonly SeenVm[]): Division {
    const moved: SeenVm[] = [];
    for (const seen of vms) {
      const home = this.#home(seen.figures.pool?.pageBytes ?? null);
      const before = this.#homes.get(seen.vm.name);
      if (before === home) continue;
      if (before !== undefined) moved.push(seen);
      this.#homes.set(seen.vm.name, home);
    }
    const gone = this.#homes.size > vms.length ? this.#namesBeside(vms) : [];
    for (const name of gone) this.#homes.delete(name);
    const members = [this.ram, ...this.pools].map((stock) => {
      const own = this.#pools.size === 0 ? vms : vms.filter(({ vm }) => this.of(vm.name) === stock);
      stock.roster.follow(own.map(({ vm }) => vm.name));
      return { stock, vms: own };
    });
    for (const { stock, vms: own } of members)
      if (own.length === 0 && stock.poolPageBytes !== null) this.#pools.delete(stock.poolPageBytes);
    return {
      members: members.filter(({ stock, vms: own }) => stock === this.ram || own.length > 0),
      gone,
      moved,
    };
  }

  /** Forgets all that the policy remembers, such as force. */
  forget(emit: Emit): void {
    for (const stock of [this.ram, ...this.pools]) {
      stock.roster.forget();
      stock.rest(emit);
    }
  }

  #namesBeside(vms: readonly SeenVm[]): string[] {
    const names = new Set(vms.map(({ vm }) => vm.name));
    return [...this.#homes.keys()].filter((name) => !names.has(name));
  }

  /** Looks at the memory of each pool. */
  lookAtPools(settings: PolicySettings): void {
    for (const { view } of this.#pools.values()) view.look(settings);
  }

  #home(pageBytes: number | null): Stock {
    if (pageBytes === null) return this.ram;
    let pool = this.#pools.get(pageBytes);
    if (pool === undefined) {
      const view = new PoolView(this.#folder, pageBytes, this.#troubles);
      view.look();
      pool = new Stock(view, this.ram.view);
      this.#pools.set(pageBytes, pool);
    }
    return pool;
  }
}
