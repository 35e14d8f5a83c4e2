/** A line of `balloonctl doctor`. */

/** `mend`: something does not work until it is mended. `note`: it works, and could be better. */
export type Level = 'ok' | 'note' | 'mend';

export interface Finding {
  /** `host`, `daemon`, or the name of a VM. */
  subject: string;
  check: string;
  level: Level;
  found: string;
  /** The command, or the step, that mends it; null: nothing to mend. */
  mend: string | null;
}

/** Nothing to mend. */
export function good(subject: string, check: string, found: string): Finding {
  return { subject, check, level: 'ok', found, mend: null };
}

export function bad(subject: string, check: string, found: string, mend: string): Finding {
  return { subject, check, level: 'mend', found, mend };
}

export function note(subject: string, check: string, found: string, mend: string): Finding {
  return { subject, check, level: 'note', found, mend };
}
