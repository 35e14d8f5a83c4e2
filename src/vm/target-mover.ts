/** Moves the target of a device, and tells by whose word. */
import { formatSize } from '../../protocol/control/size.js';
import type { Emit } from '../ops/event-log.js';
import type { DeviceOwner } from './device-owner.js';
import { PARTS, type Part } from './kinds.js';
import type { TargetBy } from './targets.js';

interface Moved {
  readonly part: Part;
  /** The target in messages. */
  readonly targetWords: string;
  readonly balloon: { readonly targetBytes: number; setTarget(bytes: number): void };
  readonly owner: Pick<DeviceOwner<never>, 'rises' | 'allow'>;
  readonly emit: Emit;
  /** The target is another one. */
  readonly moved: () => void;
}

export class TargetMover {
  readonly #of: Moved;
  #follows = false;

  constructor(of: Moved) {
    this.#of = of;
  }

  /** The policy has the target follow the working set of the guest: nobody waits until it is reached. */
  get follows(): boolean {
    return this.#follows;
  }

  setTarget(bytes: number, by: TargetBy): void {
    const moved = this.#move(bytes);
    if (moved === null) return;
    this.#follows = false;
    this.#of.emit('target-changed', `${moved.words}, by the ${by}`, { by, ...moved.sizes });
  }

  /** `why` is the end of a sentence. */
  setSize(bytes: number, why: string): void {
    const moved = this.#move(bytes);
    if (moved === null) return;
    this.#follows = true;
    this.#of.emit('size-moved', `${moved.words}: ${why}`, moved.sizes);
  }

  /** Returns what changed; null: the target is what it was. */
  #move(bytes: number): { words: string; sizes: { fromBytes: number; toBytes: number } } | null {
    const { part, targetWords, balloon, owner, moved } = this.#of;
    const { targetBytes: fromBytes } = balloon;
    if (bytes > fromBytes) owner.rises();
    if (!PARTS[part].sizesItself) owner.allow('target', bytes);
    balloon.setTarget(bytes);
    const { targetBytes: toBytes } = balloon;
    if (toBytes === fromBytes) return null;
    moved();
    return {
      words: `${targetWords} ${formatSize(fromBytes)} -> ${formatSize(toBytes)}`,
      sizes: { fromBytes, toBytes },
    };
  }
}
