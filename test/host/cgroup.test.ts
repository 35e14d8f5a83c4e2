import { rmSync } from 'node:fs';
import t from 'tap';
import { byField } from '../../protocol/control/limits.js';
import { isAbove, Cgroup } from '../../src/host/cgroup.js';
import { HostTree } from '../support/host-tree.js';

const MIB = 2 ** 20;

void t.test('reads what is there', (t) => {
  const tree = new HostTree(t);
  const cgroup = new Cgroup('/vms/web', tree.paths.cgroup);
  t.equal(cgroup.read(), null, 'no such cgroup');
  tree.memory('/vms/web', { current: 5 * MIB, high: String(6 * MIB), stat: 'anon 4096\nshmem 8192' });
  tree.write('cgroup/vms/web/memory.pressure', 'some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n');
  t.same(cgroup.read(), {
    currentBytes: 5 * MIB,
    ...byField(() => null),
    highBytes: 6 * MIB,
    stat: { anon: 4096, shmem: 8192 },
    pressure: { some: { avg10: 1.5, totalUs: 77 }, full: null },
  });
  t.end();
});

void t.test('sets, at once and on a thread, and says when it cannot', async (t) => {
  const tree = new HostTree(t);
  tree.memory('/vms/web', { max: String(9 * MIB) });
  const cgroup = new Cgroup('/vms/web', tree.paths.cgroup);
  const first = cgroup.set({ highBytes: 3 * MIB, maxBytes: 4 * MIB });
  await Promise.all([first, cgroup.set({ highBytes: null })]);
  t.match(cgroup.limits(), { highBytes: null, maxBytes: 4 * MIB }, 'in the order in which it was asked for');
  cgroup.put({ highBytes: 2 * MIB, maxBytes: 8 * MIB });
  t.match(cgroup.limits(), { highBytes: 2 * MIB, maxBytes: 8 * MIB });
  rmSync(cgroup.folder, { recursive: true });
  t.throws(() => cgroup.put({ maxBytes: 1 }), { code: 'ENOENT' });
  await t.rejects(cgroup.set({ maxBytes: 1 }), { code: 'ENOENT' });
  t.ok(isAbove(null, 1) && isAbove(2, 1) && !isAbove(1, null) && !isAbove(null, null) && !isAbove(1, 1));
});
