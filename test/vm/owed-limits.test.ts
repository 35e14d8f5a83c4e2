// Limits that were ordered and cannot be set.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/deadline.js';
import { inEachOrder } from '../support/each-order.js';
import { CGROUP, NAME, wire } from '../support/vm-on-the-wire.js';

const MIB = 2 ** 20;

inEachOrder('limits that do not hold are the verdict, and can be taken back', async (t) => {
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

inEachOrder('of limits that are asked for together, none is set where one is refused', async (t) => {
  const { fleet, tree, connect, limit } = wire(t);
  await connect('balloon');
  // A number that the kernel lets nobody write.
  rmSync(join(tree.paths.cgroup, CGROUP, 'memory.max'));
  tree.link(`cgroup${CGROUP}/memory.max`, '/proc/sys/kernel/ngroups_max');
  await t.rejects(
    fleet.control.setLimits(NAME, { high: 64 * MIB, max: 64 * MIB }),
    /cannot be written .EACCES/,
  );
  t.equal(limit('high'), 'max');
  await fleet.control.setLimits(NAME, { high: 64 * MIB });
  await t.rejects(
    fleet.control.setLimits(NAME, { high: 32 * MIB, max: 64 * MIB }),
    /cannot be written .EACCES/,
  );
  t.equal(limit('high'), String(64 * MIB), 'the limit of the order before');
  await t.rejects(
    fleet.control.setLimits(NAME, { high: 'restore', max: 64 * MIB }),
    /cannot be written .EACCES/,
  );
  t.equal(limit('high'), String(64 * MIB));
  t.match(fleet.control.find(NAME), { orders: [{ order: 'limit-high' }], limits: { high: 64 * MIB } });
  await t.rejects(fleet.control.setLimits(NAME, { high: 32 * MIB, max: 'follow' }), /cannot be written/);
  t.match(fleet.control.find(NAME), { limits: { high: 64 * MIB, problem: null }, diagnosis: null });
  await fleet.control.setLimits(NAME, { high: 'restore' });
  t.equal(limit('high'), 'max', 'as it was found');
});
