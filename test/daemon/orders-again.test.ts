// Orders that the disk refused: the next call, also one that changes nothing, or the clock alone writes them, and it is said
// once. A file that cannot be read never takes the place of another one that was set aside.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { OrderFiles } from '../../src/daemon/order-files.js';
import { wallNow } from '../../src/os/clock.js';
import { eventually } from '../support/deadline.js';
import { temporaryFolder } from '../support/fleet.js';

const PAUSED = /"paused":\{"since"/;

for (const [what, againMs] of [
  ['an order that changes nothing', 2 ** 30],
  ['the clock alone', 20],
] as const) {
  void t.test(`orders that the disk refused are written by ${what}`, async (t) => {
    const folder = join(temporaryFolder(t), 'state');
    const said: string[] = [];
    const orders = new OrderFiles(null, folder, { againMs });
    orders.listen((event) => void said.push(event));
    orders.book.pause(wallNow());
    await orders.kept();
    t.same(said, ['orders-not-kept']);
    mkdirSync(folder);
    if (againMs > 20) await orders.kept();
    // The timer of the files does not hold the process.
    await eventually(
      () => said.length > 1,
      () => 'it is said',
    );
    t.same(said, ['orders-not-kept', 'orders-kept']);
    t.match(readFileSync(join(folder, 'orders.json'), 'utf8'), PAUSED);
    rmSync(folder, { recursive: true });
  });
}

void t.test('each file that is set aside keeps a name of its own', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'orders.json');
  const newer = '{"version":2,"revision":9,"vms":{}}';
  for (const text of [newer, 'rubbish']) {
    writeFileSync(path, text);
    await new OrderFiles(null, folder).kept();
  }
  t.equal(readFileSync(`${path}.set-aside`, 'utf8'), newer);
  t.equal(readFileSync(`${path}.set-aside-2`, 'utf8'), 'rubbish');
});
