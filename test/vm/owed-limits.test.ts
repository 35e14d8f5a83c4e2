// Limits that were ordered when the VM had a cgroup, and the VM has none any more.
import t from 'tap';
import { eventually } from '../support/deadline.js';
import { NAME, wire } from '../support/vm-on-the-wire.js';

void t.test('limits that do not hold are the verdict, and can be taken back', async (t) => {
  const { fleet, tree, connect, gone } = wire(t);
  await connect('balloon');
  await fleet.control.setLimits(NAME, { high: 'max', max: 'max' });
  await gone();
  tree.process(process.pid, '/');
  await connect('balloon');
  const code = (): string | undefined => fleet.control.find(NAME)?.diagnosis?.code;
  await eventually(
    () => code() === 'no-cgroup',
    () => `the verdict: ${code() ?? 'none'}`,
  );
  t.match(fleet.control.find(NAME), { orders: [{ order: 'limit-high' }, { order: 'limit-max' }] });
  await t.rejects(fleet.control.setLimits(NAME, { high: 'follow' }), 'a limit that cannot be is refused');
  t.equal(code(), 'no-cgroup', 'and those from before are owed as before');
  await fleet.control.setLimits(NAME, { high: 'restore', max: 'restore' });
  t.match(fleet.control.find(NAME), { orders: [], diagnosis: null });
  await fleet.control.setLimits(NAME, { max: 'restore' });
});
