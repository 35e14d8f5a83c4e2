/** Swap to compressed memory (zram) for as long as it is wanted: a device of its own, which no process of the machine had before. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const CONTROL = '/sys/class/zram-control';

export class CompressedSwap {
  readonly #number = readFileSync(`${CONTROL}/hot_add`, 'latin1').trim();
  readonly #device = `/dev/zram${this.#number}`;
  readonly #folder = `/sys/block/zram${this.#number}`;

  /** Whether the kernel of the host has zram. */
  static exists(): boolean {
    return existsSync(CONTROL);
  }

  /** Swap of so many bytes, before they are compressed. */
  static async on(bytes: number): Promise<CompressedSwap> {
    const swap = new CompressedSwap();
    writeFileSync(`${swap.#folder}/disksize`, `${bytes}`);
    while (!existsSync(swap.#device)) await sleep(10);
    execFileSync('mkswap', [swap.#device], { stdio: 'ignore' });
    execFileSync('swapon', ['--priority', '100', swap.#device]);
    return swap;
  }

  /** The memory of the host that it takes now, in bytes (Documentation/admin-guide/blockdev/zram.rst, mem_used_total). */
  usedBytes(): number {
    return Number(readFileSync(`${this.#folder}/mm_stat`, 'latin1').trim().split(/\s+/)[2]);
  }

  off(): void {
    execFileSync('swapoff', [this.#device]);
    writeFileSync(`${CONTROL}/hot_remove`, this.#number);
  }
}
