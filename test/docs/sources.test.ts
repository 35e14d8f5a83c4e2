/** The sources keep their shape, where the linter does not look. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from './page.js';

/** As eslint.config.js has it for TypeScript. */
const MAX_LINES = 450;

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

void t.test('a file of the native helper is short', (t) => {
  const files = readdirSync(join(ROOT, 'src/native')).filter((name) => /\.[ch]$/.test(name));
  t.ok(files.length > 10, `${files.length} files`);
  for (const name of files) {
    const lines = read(`src/native/${name}`).trimEnd().split('\n').length;
    t.ok(lines <= MAX_LINES, `src/native/${name} has ${lines} lines`);
  }
  t.end();
});
