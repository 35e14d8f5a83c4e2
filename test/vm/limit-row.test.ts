// A further limit is one more row of protocol/control/limits.ts: requests, views, orders, records, metrics and balloonctl go by
// the row, and the compiler asks for whatever a row lacks. The table with the row is this file's.
import t from 'tap';
import { Compiler, importedWith, replaced, sourceOf } from '../support/further-row.js';

const TABLE = 'protocol/control/limits.ts';
const END = '} as const satisfies Record<string, LimitRow>';
const ROW =
  "low: { file: 'memory.low', field: 'lowBytes', effect: 'nobody takes from below it', headrooms: 0 }";

function withRow(row: string): string {
  return replaced(sourceOf(TABLE), END, `  ${row},\n${END}`);
}

void t.test('a row is all that a further limit takes', (t) => {
  const compiler = new Compiler(TABLE, ['src/main.ts', 'bin/balloonctl.ts']);
  t.same(compiler.mistakes(withRow(ROW), true), []);
  const [lacking = ''] = compiler.mistakes(withRow('low: {}'));
  t.match(
    lacking,
    /^protocol\/control\/limits\.ts: Type '\{\}' is missing .* file, field, effect, headrooms/,
  );
  t.end();
});

/** The words of the program below, with the row. */
interface Said {
  readonly valid: boolean;
  readonly following: object;
  readonly file: string;
  readonly shown: string[];
  readonly measured: number | null;
  readonly option: object;
  readonly left: string;
  readonly again: object;
}

const SCRIPT = `
import { Check } from 'typebox/schema';
import { COMMANDS } from '../../bin/commands.js';
import { SCHEMAS } from '../../protocol/control/schema.js';
import { cgroupLines } from '../../src/control/cli/show.js';
import { limitsOf } from '../../src/control/cli/option-values.js';
import { VM_FAMILIES } from '../../src/ops/vm-families.js';
import { eventually } from '../support/deadline.js';
import { NAME, wire } from '../support/vm-on-the-wire.js';
import { ANY_VMM, underOrder } from '../support/vmm-orders.js';
export const story = (t) => underOrder(ANY_VMM, () => told(t));
async function told(t) {
  const { fleet, connect, gone, limit } = wire(t);
  await connect('balloon');
  const request = limitsOf({ low: 'follow' });
  const following = await fleet.control.setLimits(NAME, request);
  const file = limit('low');
  await gone();
  const left = limit('low');
  await connect('balloon');
  await eventually(() => limit('low') === file, () => 'the limit holds again');
  return {
    valid: Check(SCHEMAS.Vm, following) && Check(SCHEMAS.VmChange, { limits: request }),
    following,
    file,
    shown: cgroupLines(following),
    measured: VM_FAMILIES.find(({ name }) => name === 'cgroup_low_bytes').read(following),
    option: COMMANDS.find(({ name }) => name === 'limit').options.low,
    left,
    again: fleet.control.find(NAME),
  };
}
`;

void t.test('such a limit is set, shown, measured and put back like any other', async (t) => {
  const { story } = (await importedWith(TABLE, withRow(ROW), SCRIPT)) as {
    story: (t: object) => Promise<Said>;
  };
  const said = await story(t);
  const bytes = Number(said.file);
  const orders = [
    { order: 'limit-low', says: 'memory.low follow', undo: 'balloonctl limit web --low restore' },
  ];
  t.ok(said.valid, 'by the schema');
  t.ok(bytes > 0, said.file);
  t.match(said.following, {
    cgroup: { lowBytes: bytes, highBytes: null, maxBytes: null },
    limits: { low: 'follow', high: null, max: null },
    orders,
  });
  t.match(said.shown.join(), /now, high max, max max, low .*,low follow the .* that the guest may use$/);
  t.equal(said.measured, bytes);
  t.same(said.option, {
    value: 'size',
    summary: 'memory.low: nobody takes from below it (SIZE|max|follow|restore)',
  });
  t.equal(said.left, 'max', 'as it was found');
  t.match(said.again, { limits: { low: 'follow' }, orders }, 'after a power cycle');
});
