// The tests of the page cache balloon, on one device and on two, in guests with the kernels of Debian 12 and of backports, beside the suite's, which has
// Debian 13's. Makes what is missing of them (scripts/guest-kernel), which takes minutes and needs root, so it is run by
// name: npm test -- out/test/e2e/cache-balloon.check.js
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';

t.setTimeout(0);

for (const suite of ['bookworm', 'trixie-backports']) {
  for (const name of ['cache-balloon', 'both-limits']) {
    void t.test(`${name} with the kernel of ${suite}`, (t) => {
      const test = join(import.meta.dirname, `${name}.test.js`);
      const { status, stdout, stderr } = spawnSync(process.execPath, ['--enable-source-maps', test], {
        env: { ...process.env, GUEST_KERNEL: suite },
        encoding: 'utf8',
      });
      t.equal(status, 0, `${stdout}${stderr}`);
      t.match(stdout, /^ok 1 - (?!.*# SKIP)/m);
      t.end();
    });
  }
}
