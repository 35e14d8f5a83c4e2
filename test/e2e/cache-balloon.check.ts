// The page cache balloon's test in guests with the kernels of Debian 12 and of backports, beside the suite's, which has
// Debian 13's. Makes what is missing of them (scripts/guest-kernel), which takes minutes and needs root, so it is run by
// name: npm test -- out/test/e2e/cache-balloon.check.js
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';

t.setTimeout(0);

const TEST = join(import.meta.dirname, 'cache-balloon.test.js');

for (const suite of ['bookworm', 'trixie-backports']) {
  void t.test(`with the kernel of ${suite}`, (t) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--enable-source-maps', TEST], {
      env: { ...process.env, GUEST_KERNEL: suite },
      encoding: 'utf8',
    });
    t.equal(status, 0, `${stdout}${stderr}`);
    t.match(stdout, /^ok 1 - (?!.*# SKIP)/m);
    t.end();
  });
}
