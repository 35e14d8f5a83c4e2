/** Pages of guest memory in the orders that drivers give them up. Everything is seeded, so runs compare. */
export const PFNS_PER_KICK = 256;

export interface Pattern {
  name: string;
  /** All page frame numbers, in order. */
  pfns: Uint32Array;
}

export function patterns(firstPfn: number, pages: number): Pattern[] {
  return [
    { name: 'sequential', pfns: shuffled(firstPfn, pages, pages) },
    { name: 'runs of 16', pfns: shuffled(firstPfn, pages, 16) },
    { name: 'random 4 KiB', pfns: shuffled(firstPfn, pages, 1) },
  ];
}

/** Runs of `run` consecutive pages, in random order. */
function shuffled(firstPfn: number, pages: number, run: number): Uint32Array {
  const order = Array.from({ length: pages / run }, (_, n) => n);
  let state = 12345;
  for (let n = order.length - 1; n > 0; n--) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (n + 1));
    [order[n], order[other]] = [order[other] ?? 0, order[n] ?? 0];
  }
  return Uint32Array.from(
    { length: pages },
    (_, n) => firstPfn + (order[Math.floor(n / run)] ?? 0) * run + (n % run),
  );
}

/** What one kick gives up, as the bytes of its buffer. */
export function* kicks(pattern: Pattern): Generator<Uint8Array> {
  for (let at = 0; at < pattern.pfns.length; at += PFNS_PER_KICK) {
    const part = pattern.pfns.slice(at, at + PFNS_PER_KICK);
    yield new Uint8Array(part.buffer);
  }
}
