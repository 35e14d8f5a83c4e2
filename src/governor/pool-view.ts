import type { HostReading } from '../host/meminfo.js';
import { readPool } from '../host/pool.js';
import { poolWords } from '../policy/words.js';
import type { StockView } from './stock.js';
import type { Troubles } from './troubles.js';

/** The memory of the host's pool of huge pages of one size. */
export class PoolView implements StockView {
  readonly kind: { readonly poolPageBytes: number };
  readonly #pools: string;
  readonly #troubles: Troubles;
  #last: HostReading | null = null;

  /** `pools` is the folder of all pools. */
  constructor(pools: string, poolPageBytes: number, troubles: Troubles) {
    this.kind = { poolPageBytes };
    this.#pools = pools;
    this.#troubles = troubles;
  }

  get last(): HostReading | null {
    return this.#last;
  }

  /** Reads the pool. Null: it cannot be read, or has only pages that return to the host's RAM when they are freed; that is told. */
  look(): HostReading | null {
    const { poolPageBytes } = this.kind;
    const read = readPool(this.#pools, poolPageBytes);
    if (read === null || read.totalBytes === 0) {
      const pool = poolWords(poolPageBytes);
      const why = read === null ? 'cannot be read' : 'has no pages that are reserved for it (nr_hugepages)';
      this.#troubles.tell(pool, `the policy leaves VMs in ${pool} alone, because the pool ${why}`);
      this.#last = null;
    } else this.#last = { ...read, pressure: null };
    return this.#last;
  }
}
