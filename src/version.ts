import { readFileSync } from 'node:fs';

/** The version that package.json has, which is the version of both programs. Throws when that file cannot be read. */
export function version(): string {
  // As far from the sources, once compiled, as from the bundled programs.
  const file = new URL('../../package.json', import.meta.url);
  const { version: number } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
  return number;
}
