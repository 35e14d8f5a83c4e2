import { readFileSync } from 'node:fs';
import t from 'tap';
import { EVENTS, EVENT_NAMES } from '../../../protocol/control/events.js';

const PAGE = new URL('../../../../docs/events.md', import.meta.url);

void t.test('docs/events.md and the catalog say the same', (t) => {
  const rows = readFileSync(PAGE, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .map((cell) => cell.trim())
        .slice(1, -1),
    );
  const page = Object.fromEntries(
    rows.map(([name = '', level, help, action]) => [name.replaceAll('`', ''), { level, help, action }]),
  );
  const catalog = Object.fromEntries(
    Object.entries(EVENTS).map(([name, { level, help, action }]) => [
      name,
      { level, help, action: action ?? 'nothing' },
    ]),
  );
  t.strictSame(page, catalog);
  t.equal(rows.length, EVENT_NAMES.length, 'no event twice');
  t.end();
});

void t.test('an event that asks for attention says what to do', (t) => {
  for (const [name, { level, action }] of Object.entries(EVENTS)) {
    if (level === 'warn' || level === 'error') t.type(action, 'string', name);
  }
  for (const name of EVENT_NAMES) t.match(name, /^[a-z]+(-[a-z]+)*$/);
  t.end();
});
