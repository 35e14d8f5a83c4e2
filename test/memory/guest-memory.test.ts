import fc from 'fast-check';
import t, { type Test } from 'tap';
import { FrontendError } from '../../src/memory/errors.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { PAGE_BYTES } from '../../src/memory/region.js';
import { closeFd, duplicateFd } from '../../src/os/fd.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { resources } from '../support/bystander.js';

/** A small guest: everything is counted in 4 KiB pages below this. */
const PAGES = 40;
const FILE_PAGES = 16;
/** Where the frontend has the guest's first page. */
const USER = 0x7f0000000000n;

interface Place {
  page: number;
  pages: number;
  filePage: number;
}

const place: fc.Arbitrary<Place> = fc
  .record({
    page: fc.nat(PAGES - 1),
    pages: fc.integer({ min: 1, max: 8 }),
    filePage: fc.nat(FILE_PAGES - 8),
  })
  .map((each) => ({ ...each, pages: Math.min(each.pages, PAGES - each.page) }));

/** In the frontend's own addresses the regions lie the other way round, so that the two cannot be confused. */
function describe({ page, pages, filePage }: Place): Parameters<GuestMemory['add']>[0] {
  return {
    gpa: BigInt(page * PAGE_BYTES),
    sizeBytes: BigInt(pages * PAGE_BYTES),
    userAddr: USER + BigInt((PAGES - page - pages) * PAGE_BYTES),
    mmapOffset: BigInt(filePage * PAGE_BYTES),
  };
}

/** A file in which no two 4-byte words at multiples of 4 are the same. */
function file(t: Test): { fd: number; bytes: Uint8Array } {
  const bytes = new Uint8Array(FILE_PAGES * PAGE_BYTES);
  new Uint32Array(bytes.buffer).forEach((_, n, words) => (words[n] = n * 2654435761));
  const fd = createMemfd('guest', bytes.length);
  const mapping = Mapping.map(fd, 0, bytes.length);
  mapping.write(0, bytes, 0, bytes.length);
  mapping.close();
  t.teardown(() => closeFd(fd));
  return { fd, bytes };
}

/** What a byte of guest memory is: byte of the file, or null where no region is. */
class Model {
  readonly places: Place[] = [];

  add(place: Place): boolean {
    const clash = this.places.some(
      ({ page, pages }) => page < place.page + place.pages && place.page < page + pages,
    );
    if (!clash) this.places.push(place);
    return !clash;
  }

  at(gpa: number): { place: Place; offset: number } | null {
    for (const place of this.places) {
      const offset = gpa - place.page * PAGE_BYTES;
      if (offset >= 0 && offset < place.pages * PAGE_BYTES) return { place, offset };
    }
    return null;
  }
}

void t.test('guest memory agrees with a list of places', (t) => {
  const before = resources();
  const { fd, bytes } = file(t);
  const address = fc.oneof(
    fc.nat(PAGES * PAGE_BYTES),
    fc
      .tuple(fc.nat(PAGES), fc.integer({ min: -3, max: 3 }))
      .map(([page, n]) => Math.max(0, page * PAGE_BYTES + n)),
  );
  const length = fc.oneof(fc.nat(3 * PAGE_BYTES), fc.nat(20));
  fc.assert(
    fc.property(
      fc.array(place, { maxLength: 8 }),
      fc.array(fc.nat(7), { maxLength: 3 }),
      fc.array(fc.tuple(address, length), { minLength: 5, maxLength: 20 }),
      (places, removals, probes) => {
        const memory = new GuestMemory();
        const model = new Model();
        try {
          for (const each of places) {
            let taken = true;
            try {
              memory.add(describe(each), duplicateFd(fd));
            } catch (error) {
              if (!(error instanceof FrontendError)) throw error;
              taken = false;
            }
            if (taken !== model.add(each)) return false;
          }
          for (const n of removals) {
            const [gone] = model.places.splice(n, 1);
            if (gone !== undefined) memory.remove(describe(gone));
          }
          const size = model.places.reduce((sum, { pages }) => sum + pages * PAGE_BYTES, 0);
          if (memory.sizeBytes !== size || memory.regions.length !== model.places.length) return false;
          return probes.every(([gpa, lenBytes]) => agrees(memory, model, bytes, gpa, lenBytes));
        } finally {
          memory.close();
        }
      },
    ),
    { numRuns: 100 },
  );
  t.same(resources(), { ...before, fds: before.fds + 1 }, 'nothing but the file is left open');
  t.end();
});

function agrees(memory: GuestMemory, model: Model, file: Uint8Array, gpa: number, lenBytes: number): boolean {
  const wanted = Array.from({ length: lenBytes }, (_, n) => model.at(gpa + n));
  let at = 0;
  for (const slice of memory.slices(gpa, lenBytes)) {
    if (slice.lenBytes < 1) return false;
    for (let n = 0; n < slice.lenBytes; n++, at++) {
      const here = wanted[at];
      if (here === undefined) return false;
      const same =
        'region' in slice
          ? here?.place.page === slice.region.gpa / PAGE_BYTES && here.offset === slice.offset + n
          : here === null && slice.outside + n === gpa + at;
      if (!same) return false;
    }
  }
  if (at !== lenBytes) return false;

  const into = new Uint8Array(lenBytes + 2).fill(0xee);
  const whole = wanted.every((here) => here !== null);
  if (memory.read(gpa, into, 1, lenBytes) !== whole) return false;
  if (into[0] !== 0xee || into[lenBytes + 1] !== 0xee) return false;
  const right = wanted.every(
    (here, n) => here === null || file[here.place.filePage * PAGE_BYTES + here.offset] === into[n + 1],
  );
  if (whole && !right) return false;

  const [first] = wanted;
  if (first === undefined || first === null) return true;
  const { place, offset } = first;
  const user = describe(place).userAddr + BigInt(offset);
  const slice = memory.resolveUser(user, lenBytes);
  const fits = offset + lenBytes <= place.pages * PAGE_BYTES;
  return fits
    ? slice?.region.gpa === place.page * PAGE_BYTES && slice.offset === offset
    : slice === undefined;
}

void t.test("the frontend's addresses resolve to what is whole in one region", (t) => {
  const { fd } = file(t);
  const memory = new GuestMemory();
  memory.add(describe({ page: 0, pages: 2, filePage: 0 }), duplicateFd(fd));
  memory.add(describe({ page: 2, pages: 2, filePage: 4 }), duplicateFd(fd));
  const end = USER + BigInt(PAGES * PAGE_BYTES);
  t.match(memory.resolveUser(end - 4096n, 4096), { offset: PAGE_BYTES, lenBytes: PAGE_BYTES });
  t.equal(memory.resolveUser(end - 4096n, 4097), undefined);
  t.equal(memory.resolveUser(end - 2n * 4096n - 1n, 2), undefined, 'adjacent, but not one');
  t.equal(memory.resolveUser(0n, 1), undefined);
  t.equal(memory.resolveUser((1n << 64n) - 1n, 2), undefined);
  memory.close();
  t.end();
});

void t.test('a table replaces all, keeps what stays, and is all or nothing', (t) => {
  const { fd } = file(t);
  const other = createMemfd('other', FILE_PAGES * PAGE_BYTES);
  const memory = new GuestMemory();
  const open = resources();
  const a = describe({ page: 0, pages: 4, filePage: 0 });
  const b = describe({ page: 8, pages: 4, filePage: 4 });
  const c = describe({ page: 16, pages: 4, filePage: 8 });
  const put = (table: (typeof a)[], fds = table.map(() => fd)): void =>
    memory.replace(table, fds.map(duplicateFd));
  put([b, a]);
  const [first, second] = memory.regions;
  t.equal(first?.gpa, 0, 'sorted');
  first?.ledger.inflate(0, 4);
  second?.ledger.inflate(1, 2);
  t.equal(memory.balloonedPages, 6);
  t.equal(memory.pendingPages, 6);

  for (const [table, fds] of [
    [
      [a, { ...c, sizeBytes: 0n }],
      [fd, fd],
    ],
    [
      [c, { ...c, gpa: c.gpa + 4096n }],
      [fd, fd],
    ],
    [[c, a], [fd]],
  ] as const) {
    t.throws(() => put([...table], [...fds]), FrontendError);
  }
  t.equal(memory.balloonedPages, 6);

  put([c, a]);
  t.equal(memory.regions[0], first, 'the same file at the same place');
  t.equal(memory.balloonedPages, 4);
  put([{ ...a, mmapOffset: 4096n }, c]);
  t.equal(memory.balloonedPages, 0, 'another part of the file is other memory');
  put([a, c]);
  memory.regions[0]?.ledger.inflate(0, 4);
  put([a, c], [other, fd]);
  t.equal(memory.balloonedPages, 0, 'so is another file');
  put([]);
  t.equal(memory.sizeBytes, 0);
  t.same(resources(), open);
  memory.close();
  closeFd(other);
  t.end();
});
