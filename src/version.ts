import { readFileSync } from 'node:fs';

/** The package.json of balloond: as far from the sources, once compiled, as from the bundled programs. */
export const PACKAGE = new URL('../../package.json', import.meta.url);

/** The version that package.json has, which is the version of both programs. Throws when that file cannot be read. */
export function version(): string {
  const { version: number } = JSON.parse(readFileSync(PACKAGE, 'utf8')) as { version: string };
  return number;
}
