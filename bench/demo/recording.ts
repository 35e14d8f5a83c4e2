/** What was seen of a VM: samples in the order of their times, and the moments at which something was done. */

export interface Sample {
  /** Since the recording began. */
  readonly seconds: number;
  /** What the host has allocated to the guest's memory. */
  readonly hostBytes: number;
  /** MemFree of the guest. */
  readonly guestFreeBytes: number;
}

export type Curve = 'hostBytes' | 'guestFreeBytes';

export const CURVE_TITLES: Record<Curve, string> = {
  hostBytes: 'memory the VM takes from the host',
  guestFreeBytes: 'free memory inside the guest',
};

export interface Mark {
  readonly seconds: number;
  readonly text: string;
}

export interface Recording {
  readonly samples: readonly Sample[];
  readonly marks: readonly Mark[];
}

/** Bytes at any time: between two samples on the line that joins them, outside of all the nearest one. */
export function valueAt(samples: readonly Sample[], curve: Curve, seconds: number): number {
  const next = samples.findIndex((sample) => sample.seconds >= seconds);
  const after = samples.at(next);
  const before = next > 0 ? samples[next - 1] : after;
  if (before === undefined || after === undefined) return 0;
  const span = after.seconds - before.seconds;
  if (span <= 0) return after[curve];
  const part = Math.min(1, (seconds - before.seconds) / span);
  return before[curve] + part * (after[curve] - before[curve]);
}

export function lastSecond({ samples, marks }: Recording): number {
  return Math.max(0, ...[...samples, ...marks].map(({ seconds }) => seconds));
}

export function largestBytes({ samples }: Recording): number {
  return Math.max(0, ...samples.flatMap(({ hostBytes, guestFreeBytes }) => [hostBytes, guestFreeBytes]));
}
