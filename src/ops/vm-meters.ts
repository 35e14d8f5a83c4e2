import { DISCARD_BOUNDS, Histogram, KICK_BOUNDS } from './histogram.js';

/** Whose fault an error was (docs/development/architecture.md, "Whose fault"). */
export const CULPRITS = ['frontend', 'driver', 'system'] as const;
type Culprit = (typeof CULPRITS)[number];

/** What is counted of one VM, or of all, and is not kept in a state file: it starts again with the daemon. */
export class VmMeters {
  /** From the wake-up by a kick until its chains were given back. */
  readonly kickToAck = new Histogram(KICK_BOUNDS);
  /** Of each batch of discards. */
  readonly discards = new Histogram(DISCARD_BOUNDS);
  readonly errors: Record<Culprit, number> = { frontend: 0, driver: 0, system: 0 };

  add({ kickToAck, discards, errors }: VmMeters): void {
    this.kickToAck.add(kickToAck);
    this.discards.add(discards);
    for (const culprit of CULPRITS) this.errors[culprit] += errors[culprit];
  }
}
