/**
 * Pages of guest memory in the orders that drivers give them up, and the least a host has to punch for them.
 * Everything is seeded, so runs compare.
 */
export const PFNS_PER_KICK = 256;
export const PFN_PAGE_BYTES = 4096;

export interface Pattern {
  readonly name: string;
  /** All page frame numbers, in order. */
  readonly pfns: Uint32Array;
}

/** `pages` is a multiple of 16 and of PFNS_PER_KICK. */
export function patterns(firstPfn: number, pages: number): Pattern[] {
  return [
    { name: 'sequential', pfns: shuffled(firstPfn, pages, pages) },
    { name: 'runs of 16', pfns: shuffled(firstPfn, pages, 16) },
    { name: 'random 4 KiB', pfns: shuffled(firstPfn, pages, 1) },
    { name: 'descending', pfns: shuffled(firstPfn, pages, pages).reverse() },
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

/** What each kick gives up, as the bytes of its buffer. */
export function kicks({ pfns }: Pattern): Uint8Array[] {
  return parts(pfns, PFNS_PER_KICK).map((part) => new Uint8Array(part.slice().buffer));
}

/**
 * For each `pfnsPerCall` page frame numbers the fewest ranges, lowest first, as pairs of offset and length in bytes.
 * A backing page is punched as a whole, with the last of its pages that is given up.
 */
export function punches({ pfns }: Pattern, backingPageBytes: number, pfnsPerCall: number): Float64Array[] {
  const pagesPerBackingPage = backingPageBytes / PFN_PAGE_BYTES;
  const given = new Map<number, number>();
  return parts(pfns, pfnsPerCall).map((part) => {
    const complete: number[] = [];
    for (const pfn of part) {
      const page = Math.floor(pfn / pagesPerBackingPage);
      const pages = (given.get(page) ?? 0) + 1;
      given.set(page, pages);
      if (pages === pagesPerBackingPage) complete.push(page);
    }
    return merged(complete, backingPageBytes);
  });
}

function merged(pages: number[], pageBytes: number): Float64Array {
  const ranges: number[] = [];
  let end = -1;
  for (const page of pages.sort((a, b) => a - b)) {
    if (page !== end) ranges.push(page * pageBytes, 0);
    ranges.push((ranges.pop() ?? 0) + pageBytes);
    end = page + 1;
  }
  return Float64Array.from(ranges);
}

export function parts(pfns: Uint32Array, length: number): Uint32Array[] {
  return Array.from({ length: Math.ceil(pfns.length / length) }, (_, n) =>
    pfns.subarray(n * length, (n + 1) * length),
  );
}
