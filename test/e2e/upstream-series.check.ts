// Each patch of guest/upstream builds, and does its part in a guest with the newest kernel of Debian's backports: the tests of the guest's driver that fit it.
// Makes what is missing (scripts/guest-kernel, scripts/upstream-series), which takes minutes and needs root, so it is run by
// name: npm test -- out/test/e2e/upstream-series.check.js
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';

t.setTimeout(0);

const ROOT = join(import.meta.dirname, '../../..');
const SUITE = 'trixie-backports';
/** Tests, by a part of their name, that can pass from this patch on. */
const FROM: readonly (readonly [patch: number, file: string, name: string])[] = [
  [1, 'both-limits', 'single pages move out of memory that goes offline'],
  [2, 'both-limits', 'a guest changes drivers'],
  [2, 'both-limits', 'a VMM with the arguments of old'],
  [2, 'cache-balloon', 'what is read over and over'],
  [2, 'cache-balloon', 'a little that is read again'],
  [3, 'both-limits', 'keeps both limits'],
  [4, 'both-limits', 'a host that inhibits discards'],
  [5, 'both-limits', '1 GiB goes in and out in few buffers'],
  [6, 'both-limits', 'the guest sees what its driver holds'],
  [6, 'cache-balloon', 'the balloon gives way to a guest that works'],
];

const modules = execFileSync('sh', [join(ROOT, 'scripts/upstream-series')], { encoding: 'utf8' }).trim();
t.equal(readdirSync(modules).length, Math.max(...FROM.map(([patch]) => patch)), 'a module of each patch');

for (const module of readdirSync(modules).sort()) {
  const fits = FROM.filter(([patch]) => patch <= parseInt(module));
  for (const file of new Set(fits.map(([, file]) => file))) {
    const names = fits.filter((row) => row[1] === file).map(([, , name]) => name);
    void t.test(`${file} with ${module}: ${names.join(', ')}`, (t) => {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        ['--enable-source-maps', join(import.meta.dirname, `${file}.test.js`)],
        {
          env: {
            ...process.env,
            GUEST_KERNEL: SUITE,
            GUEST_KERNEL_MODULE: join(modules, module),
            TAP_GREP: `/${names.join('|')}/`,
          },
          encoding: 'utf8',
        },
      );
      t.equal(status, 0, `${stdout}${stderr}`);
      t.ok([...stdout.matchAll(/^ok \d+ - (?!.*# SKIP)/gm)].length >= names.length, stdout);
      t.end();
    });
  }
}
