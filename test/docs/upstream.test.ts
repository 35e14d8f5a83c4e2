/** The series for Linux in guest/upstream follows the driver in guest/virtio_balloon. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from './page.js';

void t.test('a change of the driver is brought into the series', (t) => {
  const folder = join(ROOT, 'guest/virtio_balloon');
  const sum = createHash('sha256');
  for (const name of readdirSync(folder)
    .filter((name) => /\.[ch]$/.test(name))
    .sort())
    sum.update(readFileSync(join(folder, name)));
  t.equal(
    readFileSync(join(ROOT, 'guest/upstream/driver.sha256'), 'latin1').trim(),
    sum.digest('hex'),
    'change guest/upstream, run out/test/e2e/upstream-series.check.js, and write the new sum into guest/upstream/driver.sha256',
  );
  t.end();
});
