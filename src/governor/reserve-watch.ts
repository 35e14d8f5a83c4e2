/** Watches whether the VMs that share a stock could give its reserve at all. */
import { refusal, type NextStep } from '../../protocol/control/refusal.js';
import { formatSize } from '../../protocol/control/size.js';
import type { Emit } from '../ops/event-log.js';
import type { StockKind } from '../policy/inputs.js';
import { availableWords, poolWords } from '../policy/words.js';

/** What is wrong, a sentence without its end, and what mends it. */
export interface Unmet {
  readonly text: string;
  readonly remedy: NextStep;
}

/** A host whose VMs begin is short for a while, until their drivers run. */
const PATIENCE_SECONDS = 10;

/** The memory of a stock at one look, in bytes. */
interface Look {
  readonly kind: StockKind;
  readonly nowSeconds: number;
  readonly availableBytes: number;
  readonly reserveBytes: number;
  /** The part of the reserve that would be missing if the VMs gave all that may be taken from them. */
  readonly lackingBytes: number;
}

export class ReserveWatch {
  #sinceSeconds: number | null = null;
  #unmet: Unmet | null = null;

  /** Why the reserve cannot be met, and what mends it; null: it can be, as far as is known. */
  get unmet(): Unmet | null {
    return this.#unmet;
  }

  look(seen: Look, emit: Emit): void {
    const { nowSeconds, lackingBytes, reserveBytes, availableBytes } = seen;
    if (lackingBytes > 0) {
      this.#sinceSeconds ??= nowSeconds;
      if (this.#unmet === null && nowSeconds - this.#sinceSeconds < PATIENCE_SECONDS) return;
      const isNew = this.#unmet === null;
      this.#unmet = unmetOf(seen);
      const { text, remedy } = this.#unmet;
      const sizes = {
        reserveBytes: Math.round(reserveBytes),
        availableBytes,
        lackingBytes: Math.round(lackingBytes),
      };
      if (isNew) emit('reserve-unmet', refusal(text, remedy), sizes);
      return;
    }
    this.rest(emit);
  }

  /** The policy asks nothing of anybody, or the reserve is there. */
  rest(emit: Emit): void {
    this.#sinceSeconds = null;
    if (this.#unmet === null) return;
    this.#unmet = null;
    emit('reserve-met', 'the VMs can give the reserve again, or the policy does not ask for it', {});
  }
}

function unmetOf({ kind, availableBytes, reserveBytes, lackingBytes }: Look): Unmet {
  const most = Math.max(0, reserveBytes - availableBytes - lackingBytes);
  // No reserve but none at all would be met.
  const lower = availableBytes + most > 0 ? 'lower reserve or a min' : 'lower a min';
  return {
    text: `the VMs cannot give the reserve of ${formatSize(reserveBytes)}, because ${availableWords(kind)} ${formatSize(availableBytes)}, and at most ${formatSize(most)} more may be taken from VMs (down to their min, from guests without deflate-on-oom only memory that they do not use, and nothing from VMs that withstood force)`,
    remedy: stepOf(kind, lower),
  };
}

function stepOf(kind: StockKind, lower: string): NextStep {
  if (typeof kind === 'object')
    return `add pages to ${poolWords(kind.poolPageBytes)} (nr_hugepages), end or move a VM, or ${lower} in [policy]`;
  return kind === 'host'
    ? `end or move a VM or another program, or ${lower} in [policy]`
    : `raise memory in [policy] if the host has more, end or move a VM, or ${lower} in [policy]`;
}
