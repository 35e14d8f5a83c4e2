// A further kind of device is one more row of src/vm/kinds.ts: views, targets, orders and records go by the row, and the
// compiler asks for whatever a row lacks. The table with the row is this file's, all other sources are as they are.
import t from 'tap';
import { Compiler, importedWith, replaced, sourceOf } from '../support/further-row.js';

const TABLE = 'src/vm/kinds.ts';
const KIND = 'next-balloon';
const named = replaced(sourceOf(TABLE), "'cache-balloon'] as const", `'cache-balloon', '${KIND}'] as const`);
const ROW = [
  '...SERVED',
  "part: 'balloon'",
  "words: 'next balloon'",
  "targetWords: 'target of the next balloon'",
  "driver: 'virtio_balloon'",
  'features: []',
  'statsFeature: null',
  'make: (parts) => new Balloon(parts)',
];

function withRow(row: readonly string[]): string {
  return replaced(
    named,
    "  'cache-balloon': {\n",
    `  '${KIND}': { ${row.join(', ')} },\n  'cache-balloon': {\n`,
  );
}

void t.test('a row is all that a further kind takes', (t) => {
  const compiler = new Compiler(TABLE, ['src/main.ts']);
  t.same(compiler.mistakes(withRow(ROW), true), []);
  t.match(
    compiler.mistakes(named),
    [/^src\/vm\/kinds\.ts: Property '.*next-balloon.*' is missing/],
    'no row',
  );
  const [lacking = ''] = compiler.mistakes(withRow([]));
  t.match(lacking, /^src\/vm\/kinds\.ts: Type '\{\}' is missing .* features, make, part, words, and \d more/);
  t.match(
    compiler.mistakes(withRow([...ROW, "part: 'disk'"].filter((column) => column !== "part: 'balloon'"))),
    [/^src\/vm\/kinds\.ts: .*"disk"/],
  );
  t.end();
});

/** What the program below says, as it is with the row. */
interface Said {
  readonly before: object;
  readonly after: object;
  readonly again: object;
  readonly refused: string;
  readonly live: object;
}

const SCRIPT = `
import { NAME, wire } from '../support/vm-on-the-wire.js';
import { ANY_VMM, underOrder } from '../support/vmm-orders.js';
export const story = (t) => underOrder(ANY_VMM, () => told(t));
async function told(t) {
  const { fleet, connect, gone } = wire(t, {}, '${KIND}');
  await connect('balloon');
  const before = fleet.control.find(NAME);
  const after = await fleet.control.setTarget(NAME, { balloonBytes: 2 ** 20 });
  const refused = await fleet.control.setTarget(NAME, { cacheLimitBytes: 7 }).catch(({ message }) => message);
  await gone();
  await connect('balloon');
  return { before, after, again: fleet.control.find(NAME), refused, live: fleet.control.live() };
}
`;

void t.test('a VM with such a device is shown, commanded and found again like any other', async (t) => {
  const { story } = (await importedWith(TABLE, withRow(ROW), SCRIPT)) as {
    story: (t: object) => Promise<Said>;
  };
  const { before, after, again, refused, live } = await story(t);
  t.match(before, {
    balloon: { targetBytes: 0 },
    cache: null,
    policy: { mode: 'observe' },
    state: 'running',
  });
  t.match(after, {
    balloon: { targetBytes: 2 ** 20 },
    policy: { mode: 'manual' },
    orders: [{ order: 'target' }],
  });
  t.match(again, { balloon: { targetBytes: 2 ** 20 } }, 'after a power cycle');
  t.match(refused, /has no page cache balloon/);
  t.match(live, { vms: [{ name: 'web', state: 'running', cacheBytes: null, targetBytes: 2 ** 20 }] });
});
