import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '../../..');
/** Those of the helper that know nothing of Node. */
const HELPER = ['socket', 'mapping', 'memfd', 'fd', 'eventfd', 'discard', 'sigbus'];
const FLAGS = ['-std=gnu11', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-fno-omit-frame-pointer'];
const SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'];

/** The helper's C and its driver under AddressSanitizer and UBSan, as a program; its path. */
export function buildNative(): string {
  const folder = join(ROOT, 'out/test/fuzz/native');
  const program = join(folder, 'native-fuzz');
  mkdirSync(folder, { recursive: true });
  const sources = HELPER.map((name) => join(ROOT, `src/native/${name}.c`));
  const driver = join(ROOT, 'test/fuzz/native/native-fuzz.c');
  const include = `-I${join(ROOT, 'src/native')}`;
  execFileSync('gcc', [...FLAGS, ...SANITIZERS, include, driver, ...sources, '-o', program], {
    stdio: 'inherit',
  });
  return program;
}
