import { readFileSync, readSync, writeSync } from 'node:fs';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { createEventFd } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { SYSTEM_PAGE_BYTES } from '../../src/os/file.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { openFds, runNode, script } from './inspect.js';

const PAGE = SYSTEM_PAGE_BYTES;
const GIB = 2 ** 30;

function open(t: Test, name: string, size: number): { fd: number; mapping: Mapping } {
  const fd = createMemfd(name, size);
  const mapping = Mapping.map(fd, 0, size);
  t.teardown(() => {
    mapping.close();
    closeFd(fd);
  });
  return { fd, mapping };
}

/** Addresses at which the memory file is mapped, with the flags that smaps shows. */
function mapped(name: string): string[] {
  const blocks = readFileSync('/proc/self/smaps', 'latin1').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  return blocks
    .filter((block) => block.split('\n', 1)[0]?.includes(`/memfd:${name} `))
    .map((block) => /^VmFlags: (.*)$/m.exec(block)?.[1] ?? '');
}

void t.test('copies, views and the file are the same memory', (t) => {
  const { fd, mapping } = open(t, 'same', 4 * PAGE);
  mapping.write(PAGE - 2, Uint8Array.of(9, 1, 2, 3, 4, 9), 1, 4);
  const view = new Uint8Array(mapping.view(PAGE - 3, 6));
  t.same([...view], [0, 1, 2, 3, 4, 0]);
  const fromFile = Buffer.alloc(4);
  readSync(fd, fromFile, 0, 4, PAGE - 2);
  t.same([...fromFile], [1, 2, 3, 4]);
  writeSync(fd, Buffer.of(7), 0, 1, PAGE);
  t.equal(view[3], 7);
  view[4] = 8;
  const out = new Uint8Array(6).fill(5);
  mapping.read(PAGE - 2, out, 1, 4);
  t.same([...out], [5, 1, 2, 7, 8, 5]);
  t.end();
});

void t.test('a mapping of a part of a file', (t) => {
  const fd = createMemfd('part', 4 * PAGE);
  writeSync(fd, Buffer.of(1), 0, 1, 2 * PAGE);
  const mapping = Mapping.map(fd, 2 * PAGE, PAGE);
  closeFd(fd);
  const out = new Uint8Array(1);
  mapping.read(0, out, 0, 1);
  t.equal(out[0], 1, 'though the fd is closed');
  t.equal(mapping.length, PAGE);
  mapping.close();
  t.end();
});

void t.test('property: reads return what was last written', (t) => {
  const size = 3 * PAGE;
  const { mapping } = open(t, 'model', size);
  const view = new Uint8Array(mapping.view(0, size));
  const model = new Uint8Array(size);
  const span = fc
    .tuple(fc.nat(size), fc.nat(size))
    .map(([a, b]) => ({ at: Math.min(a, b), end: Math.max(a, b) }));
  fc.assert(
    fc.property(span, fc.nat(255), fc.nat(16), ({ at, end }, value, lead) => {
      const bytes = new Uint8Array(lead + end - at).fill(value, lead);
      mapping.write(at, bytes, lead, end - at);
      model.fill(value, at, end);
      const out = new Uint8Array(size);
      mapping.read(0, out, 0, size);
      return Buffer.compare(out, model) === 0 && Buffer.compare(view, model) === 0;
    }),
  );
  t.end();
});

void t.test('property: nothing outside the mapping or the buffer is touched', (t) => {
  const size = 2 * PAGE;
  const { mapping } = open(t, 'bounds', size);
  const buffer = new Uint8Array(64).fill(7);
  const edge = (limit: number): fc.Arbitrary<number> =>
    fc.oneof(
      fc.integer({ min: -2, max: limit + 2 }),
      fc.constantFrom(0.5, NaN, Infinity, 2 ** 32, 2 ** 53, 2 ** 64, -(2 ** 40)),
    );
  fc.assert(
    fc.property(edge(size), edge(64), edge(80), (at, offset, length) => {
      const inside = [at, offset, length].every((n) => Number.isSafeInteger(n) && n >= 0);
      const legal = inside && at + length <= size && offset + length <= 64;
      for (const copy of [mapping.write.bind(mapping), mapping.read.bind(mapping)]) {
        let refused = false;
        try {
          copy(at, buffer, offset, length);
        } catch (error) {
          refused = error instanceof TypeError;
        }
        if (refused === legal) return false;
      }
      return true;
    }),
  );
  t.ok(
    buffer.every((byte) => byte === 7),
    'what was written was read back',
  );
  t.end();
});

void t.test('views', (t) => {
  const { mapping } = open(t, 'views', GIB + PAGE);
  t.equal(mapping.view(0, GIB).byteLength, GIB);
  for (const [offset, length] of [
    [0, GIB + 1],
    [0, 0],
    [GIB, PAGE + 1],
    [GIB + PAGE, 1],
    [-1, 2],
    [0.5, 1],
    [2 ** 53, 1],
  ] as const) {
    t.throws(() => mapping.view(offset, length), TypeError, `${offset} + ${length}`);
  }
  const [a, b] = [mapping.view(PAGE, 64), mapping.view(PAGE, 64)];
  Atomics.store(new Int32Array(a), 1, 77);
  t.equal(Atomics.load(new Int32Array(b), 1), 77, 'two of the same place');
  mapping.release(a);
  t.equal(a.byteLength, 0);
  t.equal(new Int32Array(b)[1], 77, 'the other one stays');
  mapping.release(a);
  const foreign = new ArrayBuffer(8);
  mapping.release(foreign);
  t.equal(foreign.byteLength, 8, 'not one of its views');
  t.end();
});

void t.test('close detaches every view and unmaps', (t) => {
  const before = openFds();
  const fd = createMemfd('detach', 4 * PAGE);
  const mapping = Mapping.map(fd, 0, 4 * PAGE);
  const views = [mapping.view(0, 64), mapping.view(PAGE, 2 * PAGE)];
  const bytes = views.map((view) => new Uint8Array(view));
  t.equal(mapped('detach').length, 1);
  t.equal(mapping.closed, false);
  mapping.close();
  mapping.close();
  t.equal(mapping.closed, true);
  t.equal(mapped('detach').length, 0);
  for (const view of views) t.equal(view.byteLength, 0);
  for (const array of bytes) {
    t.equal(array[0], undefined);
    t.throws(() => Atomics.load(array, 0));
  }
  t.throws(() => mapping.view(0, 1), TypeError);
  t.throws(() => mapping.read(0, new Uint8Array(1), 0, 1), TypeError);
  t.throws(() => mapping.write(0, new Uint8Array(1), 0, 1), TypeError);
  closeFd(fd);
  t.equal(openFds(), before);
  t.end();
});

void t.test('left out of core dumps and of children', (t) => {
  open(t, 'flags', PAGE);
  const [flags = ''] = mapped('flags');
  t.ok(flags.split(' ').includes('dd'));
  t.ok(flags.split(' ').includes('dc'));
  t.end();
});

void t.test('what cannot be mapped', (t) => {
  const fd = createMemfd('small', PAGE);
  const event = createEventFd();
  for (const [offset, length] of [
    [0, PAGE + 1],
    [PAGE, 1],
    [2 * PAGE, 0],
    [0, Number.MAX_SAFE_INTEGER],
    [Number.MAX_SAFE_INTEGER, 1],
  ] as const) {
    t.throws(() => Mapping.map(fd, offset, length), { code: 'ENXIO', syscall: 'mmap' }, 'beyond the file');
  }
  t.throws(() => Mapping.map(fd, 1, 1), { code: 'EINVAL' }, 'not page-aligned');
  t.throws(() => Mapping.map(fd, 0, 0), { code: 'EINVAL' });
  t.throws(() => Mapping.map(event, 0, PAGE), { code: 'ENXIO' });
  t.throws(() => Mapping.map(fd, -1, PAGE), TypeError);
  closeFd(fd);
  closeFd(event);
  t.throws(() => Mapping.map(fd, 0, PAGE), { code: 'EBADF' });
  t.equal(mapped('small').length, 0);
  t.end();
});

void t.test('a view outlives a mapping that was dropped, and the mapping does not outlive the view', (t) => {
  const { stdout, stderr, signal } = runNode(
    script(
      { mapping: 'Mapping', memfd: 'createMemfd' },
      `import { readFileSync } from 'node:fs';
       const mapped = () => readFileSync('/proc/self/maps', 'latin1').includes('/memfd:dropped ');
       const collect = async () => { for (let n = 0; n < 10; n++) { gc(); await new Promise(setImmediate); } };
       let view = (() => new Uint8Array(Mapping.map(createMemfd('dropped', 4096), 0, 4096).view(0, 64)))();
       await collect();
       view[0] = 5;
       console.log(view[0], mapped());
       view = null;
       await collect();
       console.log(mapped());`,
    ),
    ['--expose-gc'],
  );
  t.equal(signal, null, { stderr });
  t.equal(stdout, '5 true\nfalse', { stderr });
  t.end();
});
