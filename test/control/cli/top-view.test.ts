import fc from 'fast-check';
import t from 'tap';
import type { PolicyState, VmView } from '../../../protocol/control/schema.js';
import { SORT_KEYS } from '../../../src/control/cli/choices.js';
import { KeyDecoder, type Key } from '../../../src/control/cli/keys.js';
import { openOutput } from '../../../src/control/cli/output.js';
import { columnsOf } from '../../../src/control/cli/text.js';
import { TopModel } from '../../../src/control/cli/top-model.js';
import { renderTop, Samples } from '../../../src/control/cli/top-view.js';
import { GIB, vmView } from '../../support/fleet.js';

const output = openOutput({ write: () => true }, {}, false);
const POLICY: PolicyState = {
  ...{ mode: 'observe', paused: false, problem: null, reserveBytes: GIB, bands: [], vms: [], orders: [] },
  host: { totalBytes: 64 * GIB, availableBytes: 12 * GIB, pressurePercent: 0.5, short: false },
};

function sized(name: string, actualBytes: number, change: Partial<VmView> = {}): VmView {
  const vm = vmView(name, change);
  return { ...vm, balloon: { ...vm.balloon, actualBytes } };
}

void t.test('it sorts, sums up, and draws what was', (t) => {
  const samples = new Samples();
  const vms = [sized('a-name-that-is-much-too-long', 3 * GIB), sized('b', 0)];
  for (const bytes of [0, 2 * GIB, 4 * GIB]) samples.add([sized('b', bytes)]);
  samples.add(vms);
  const [host, sum, , ...rows] = renderTop({ vms, policy: POLICY }, samples, 'balloon', 60, output);
  t.equal(host, 'host: 12 GiB of 64 GiB available, pressure 0.5 %; policy observe'.slice(0, 59) + '…');
  t.equal(sum, '2 VMs: RAM 8 GiB, guests have 5 GiB, in balloons 3 GiB');
  t.match(rows, [/^a-na\S*…\S*-long  running/, /^b .* █▅▁█$/]);
  t.match(renderTop({ vms, policy: POLICY }, samples, 'memory', 80, output)[3], /^b /);
  for (let n = 0; n < 99; n++) samples.add(vms);
  t.equal(samples.sparkline(vmView('b'), Infinity).length, 60, 'bounded');
  const cached = vmView('cached', { cache: { ...vmView('cached').balloon, actualBytes: GIB } });
  t.match(renderTop({ vms: [cached], policy: POLICY }, new Samples(), 'name', 80, output).slice(1), [
    '1 VM: RAM 4 GiB, guests have 3 GiB, in balloons 1 GiB',
    / BALLOON +CACHE +AVAIL /,
    /^cached +running +4 GiB +3 GiB +0 B +1 GiB +3 GiB$/,
  ]);
  t.end();
});

void t.test('a terminal that is too narrow for a column goes without it, and cuts no size', (t) => {
  const vms = [
    sized('web-1', GIB, { inhibited: 'backup' }),
    sized('web-2', GIB, { verdict: 'it is slow' }),
    vmView('db', { cache: vmView('db').balloon }),
  ];
  const samples = new Samples();
  samples.add(vms);
  const headAt = (columns: number): string[] => {
    const [, , head = '', ...rows] = renderTop({ vms, policy: POLICY }, samples, 'name', columns, output);
    for (const row of rows.slice(0, vms.length)) t.notMatch(row, '…', `${columns} columns`);
    return head.split(/ +/);
  };
  t.same(headAt(80), ['VM', 'STATE', 'MARK', 'RAM', 'GUEST', 'BALLOON', 'CACHE', 'AVAIL', 'GUEST', 'HAD']);
  t.same(headAt(60), ['VM', 'STATE', 'MARK', 'RAM', 'GUEST', 'BALLOON', 'CACHE', 'AVAIL']);
  t.same(headAt(50), ['VM', 'STATE', 'MARK', 'GUEST', 'BALLOON', 'AVAIL']);
  t.same(headAt(40), ['VM', 'STATE', 'MARK', 'GUEST', 'AVAIL']);
  t.same(headAt(20), ['VM', 'MARK', 'GUEST']);
  t.end();
});

const bytes = fc.maxSafeNat();
const anyVm = fc
  .record({
    name: fc.oneof(
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 64 }),
      fc.string({ unit: 'binary', minLength: 1, maxLength: 64 }),
    ),
    verdict: fc.option(fc.string({ unit: 'grapheme' })),
    inhibited: fc.option(fc.string()),
    state: fc.constantFrom('connected' as const, 'running' as const, 'stopped' as const),
    ramBytes: bytes,
    actualBytes: bytes,
    available: fc.option(bytes),
    cached: fc.option(bytes),
  })
  .map(({ name, actualBytes, available, cached, ...change }) => {
    const stats = available === null ? null : { ageSeconds: 1, VIRTIO_BALLOON_S_AVAIL: available };
    const cache = cached === null ? null : { ...vmView(name).balloon, actualBytes: cached };
    return sized(name, actualBytes, { ...change, stats, cache });
  });
const anyKeys = fc.array(
  fc.oneof(
    fc.constantFrom<Key[]>(
      'up',
      'down',
      'page-up',
      'page-down',
      'home',
      'end',
      'enter',
      'escape',
      'backspace',
    ),
    fc.constantFrom(...'/nmbajkgGxy'.split('')).map((typed): Key => ({ typed })),
  ),
  { maxLength: 12 },
);

/** Without codes; what is put to a column is a line broken there. */
const plain = (line: string): string => line.replaceAll(/\x1b\[[?\d;]*[a-zA-Z]/g, '');

void t.test(
  'no line is wider than the terminal, nor are there more than it has, whatever is pressed',
  (t) => {
    const screen = fc.record({
      columns: fc.integer({ min: 1, max: 200 }),
      rows: fc.integer({ min: 1, max: 50 }),
    });
    const looks = fc.array(fc.tuple(fc.array(anyVm, { maxLength: 60 }), anyKeys, screen), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(looks, fc.constantFrom(...SORT_KEYS), (seen, sort) => {
        const model = new TopModel({ vms: [], policy: POLICY }, sort);
        for (const [vms, keys, size] of seen) {
          model.see({ vms, policy: POLICY });
          for (const key of keys) {
            model.press(key);
            const lines = model.frame(size, output);
            if (lines.length > size.rows) throw new Error(`${lines.length} lines of ${size.rows}`);
            for (const line of lines.map(plain)) {
              if (columnsOf(line) > size.columns) throw new Error(`${columnsOf(line)} columns: ${line}`);
            }
          }
        }
      }),
      { numRuns: 100 },
    );
    t.end();
  },
);

void t.test('what is selected is on the screen, and is found by its name', (t) => {
  const names = Array.from({ length: 40 }, (_, n) => `vm-${n}`);
  const moves = fc.array(fc.constantFrom<Key[]>('up', 'down', 'page-up', 'page-down', 'home', 'end'), {
    minLength: 1,
    maxLength: 20,
  });
  fc.assert(
    fc.property(moves, fc.array(bytes, { minLength: 40, maxLength: 40 }), (keys, sizes) => {
      const model = new TopModel({ vms: names.map((name) => sized(name, 0)), policy: POLICY }, 'balloon');
      const selected = (): string | undefined =>
        model
          .frame({ columns: 80, rows: 12 }, output)
          .map((line) => /\x1b\[7m(\S+)/.exec(line)?.[1])
          .find((name) => name !== undefined);
      for (const key of keys) {
        model.press(key);
        if (selected() === undefined) throw new Error('it is not on the screen');
      }
      const before = selected();
      model.see({ vms: names.map((name, n) => sized(name, sizes[n] ?? 0)), policy: POLICY });
      t.equal(selected(), before);
    }),
    { numRuns: 50 },
  );
  t.end();
});

void t.test('keys come in any number of pieces', (t) => {
  const typed: [string, Key][] = [
    ['\x1b[A', 'up'],
    ['\x1bOB', 'down'],
    ['\x1b[5~', 'page-up'],
    ['\x1b[6~', 'page-down'],
    ['\x1b[H', 'home'],
    ['\x1bOF', 'end'],
    ['\x1b[1~', 'home'],
    ['\x1b[8~', 'end'],
    ['q', { typed: 'q' }],
    ['ü', { typed: 'ü' }],
    ['🎉', { typed: '🎉' }],
    ['\r', 'enter'],
    ['\x7f', 'backspace'],
    ['\x03', 'interrupt'],
  ];
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(...typed)),
      fc.array(fc.integer({ min: 1, max: 5 })),
      (keys, cuts) => {
        const decoder = new KeyDecoder();
        let left = Array.from(keys.map(([text]) => text).join(''));
        const got: Key[] = [];
        for (const cut of cuts) {
          got.push(...decoder.push(left.slice(0, cut).join('')));
          left = left.slice(cut);
        }
        got.push(...decoder.push(left.join('')));
        t.same(
          got,
          keys.map(([, key]) => key),
        );
      },
    ),
  );
  const decoder = new KeyDecoder();
  t.same(decoder.push('\x1b'), []);
  t.same([decoder.waits, decoder.flush(), decoder.flush()], [true, ['escape'], []]);
  t.same(decoder.push('\x1b[15~\x1b[1;5A\x02q'), [{ typed: 'q' }], 'others are nothing');
  t.end();
});
