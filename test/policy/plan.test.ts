// What real guests taught: test/e2e/policy.check.ts has the run in which each of these went wrong.
import t from 'tap';
import type { TargetAction } from '../../src/policy/action.js';
import { MIB, plan, vm, World, type WorldVm } from './world.js';

const RAM_BYTES = 1000 * MIB;

/** Targets that would change now. */
function targets(world: World): TargetAction[] {
  const { actions } = plan(world.host(), world.table, world.config, world.state);
  return actions.filter((action) => action.kind === 'target');
}

void t.test('a guest that waits for its own page cache to make way is not short', (t) => {
  const world = new World(2 * RAM_BYTES, [vm({ band: 0, ramBytes: RAM_BYTES, wantsBytes: 400 * MIB })]);
  world.table.targetBytes.fill(500 * MIB);
  world.table.actualBytes.fill(500 * MIB);
  world.table.stallPercent.fill(30);
  world.table.currentBytes.fill(500 * MIB);
  world.state = { ...world.state, short: true };
  world.table.availableBytes.fill(100 * MIB);
  t.equal(targets(world).filter(({ reason }) => reason.cause === 'guest-short').length, 0);
  world.table.availableBytes.fill(20 * MIB);
  t.match(targets(world), [{ reason: { cause: 'guest-short', stallPercent: 30 } }], 'now it is');
  world.table.availableBytes.fill(NaN);
  t.match(targets(world), [{ reason: { cause: 'guest-short' } }], 'who says nothing is believed to be');
  t.end();
});

void t.test('nothing is taken from the highest band when the host gets nothing by it', (t) => {
  // It has touched 100 MiB and 40 of them are free again; to get at these, 600 that it never touched would go first.
  const world = new World(RAM_BYTES, [
    vm({ band: 0, ramBytes: RAM_BYTES, wantsBytes: 60 * MIB, minBytes: 300 * MIB }),
    vm({ band: 2, ramBytes: RAM_BYTES, wantsBytes: 860 * MIB, minBytes: 860 * MIB }),
  ]);
  world.step();
  world.table.currentBytes[0] = 100 * MIB;
  world.now += 100;
  t.ok(world.availableBytes < 0.1 * world.totalBytes, 'the host is short');
  t.same(targets(world), []);
  t.end();
});

void t.test(
  'who can yield, only not so fast, is waited for: a higher band is asked when half is gone',
  (t) => {
    const fill = (availableBytes: number): World => {
      const world = new World(2 * RAM_BYTES + availableBytes, [
        vm({ band: 1, ramBytes: RAM_BYTES, wantsBytes: 200 * MIB }),
        vm({ band: 2, ramBytes: RAM_BYTES, wantsBytes: 200 * MIB }),
      ]);
      // Page cache fills the rest.
      world.table.currentBytes.fill(RAM_BYTES);
      world.table.freeBytes.fill(0);
      return world;
    };
    const patient = fill(150 * MIB);
    patient.now = 100;
    t.same(
      targets(patient).map(({ row }) => row),
      [1],
      'bronze has the ramp of ten seconds',
    );
    for (let second = 0; second < 3; second++) {
      const rows = patient.step().actions.map(({ row }) => row);
      t.notOk(rows.includes(0), `silver is left alone while bronze yields: ${rows.join()}`);
    }
    t.end();
  },
);

void t.test(
  'a balloon that follows the working set is not deflated because the host has memory left over',
  (t) => {
    const guest = { band: 0, ramBytes: RAM_BYTES, wantsBytes: 400 * MIB };
    const world = new World(10 * RAM_BYTES, [vm({ ...guest, sized: true }), vm(guest)]);
    world.table.targetBytes.fill(500 * MIB);
    world.table.actualBytes.fill(500 * MIB);
    for (let second = 0; second < 300; second++) world.step();
    t.same([...world.table.targetBytes], [500 * MIB, 0]);
    t.end();
  },
);

void t.test(
  'a guest whose balloon follows its working set is given memory by the law of working sets, not by the plan, where there is some',
  (t) => {
    const guest = { band: 0, ramBytes: 8 * RAM_BYTES, wantsBytes: RAM_BYTES };
    const world = new World(20 * RAM_BYTES, [vm({ ...guest, sized: true }), vm(guest)]);
    world.table.targetBytes.fill(4 * RAM_BYTES);
    world.table.actualBytes.fill(4 * RAM_BYTES);
    world.table.currentBytes.fill(4 * RAM_BYTES);
    world.state = { ...world.state, short: true };
    world.table.availableBytes.fill(33 * MIB);
    world.table.stallPercent.fill(30);
    const short = (): number[] =>
      targets(world)
        .filter(({ reason }) => reason.cause === 'guest-short')
        .map(({ row }) => row);
    t.same(short(), [1]);
    world.table.availableBytes.fill(8 * MIB);
    t.same(short(), [1]);
    t.end();
  },
);

void t.test(
  'the plan gives memory to a guest whose balloon follows its working set where the host has no room',
  (t) => {
    const guest = { band: 0, ramBytes: 8 * RAM_BYTES, wantsBytes: RAM_BYTES };
    const causes = (totalBytes: number): string[] => {
      const world = new World(totalBytes, [
        vm({ ...guest, sized: true }),
        vm({ ...guest, band: 2, wantsBytes: 4 * RAM_BYTES }),
      ]);
      world.table.targetBytes.fill(4 * RAM_BYTES);
      world.table.actualBytes.fill(4 * RAM_BYTES);
      world.table.currentBytes.fill(4 * RAM_BYTES);
      world.table.availableBytes.set([8 * MIB, 3 * RAM_BYTES]);
      world.table.stallPercent.set([30, 0]);
      return targets(world).map(({ row, reason: { cause } }) => `${row}: ${cause}`);
    };
    const hostBytes = 9 * RAM_BYTES;
    t.same(causes(hostBytes).sort(), ['0: guest-short', '1: needed-elsewhere'], 'below the reserve');
    t.same(causes(2 * hostBytes), ['1: refund'], 'above it, the law of working sets gives');
    t.end();
  },
);

void t.test('what VMs cannot give of the reserve is told, whether it was asked of them or not', (t) => {
  // Each uses 600 MiB of 1000, and its page cache fills the rest.
  const lacking = (totalBytes: number, more: Partial<WorldVm> = {}, vms = 2): number => {
    const guest = { ramBytes: RAM_BYTES, wantsBytes: 600 * MIB, minBytes: 300 * MIB, ...more };
    const world = new World(totalBytes, [vm({ ...guest, band: 0 }), vm(guest)].slice(0, vms));
    world.table.currentBytes.fill(RAM_BYTES);
    world.table.freeBytes.fill(0);
    const at = (): number => plan(world.host(), world.table, world.config, world.state).lackingBytes ?? 0;
    const before = at();
    for (let second = 0; second < 60; second++) world.step();
    // A guest that has less needs less headroom.
    t.ok(Math.abs(at() - before) < 80 * MIB, `asked and yielded, ${at()} is like ${before}`);
    return Math.round(before / MIB);
  };
  // The reserve is 200 MiB of 2000: both have 700 MiB to give.
  t.equal(lacking(2 * RAM_BYTES), 0);
  // The reserve is 60 MiB of 600, and their floors leave nothing.
  t.equal(lacking(600 * MIB), 60);
  // 110 MiB of 1100: they use 1200, of which a guest that can take nothing back gives none.
  t.equal(lacking(1100 * MIB), 0);
  t.ok(lacking(1100 * MIB, { firm: true }) > 110, 'beyond the reserve');
  t.equal(lacking(200 * MIB, {}, 1), 120, 'one');
  t.end();
});

void t.test('memory that a guest has only just done without is no reason to end a VM', (t) => {
  const guest = { ramBytes: RAM_BYTES, wantsBytes: 300 * MIB, minBytes: 100 * MIB, firm: true };
  const world = new World(1000 * MIB, [vm({ ...guest, band: 0 })]);
  world.table.currentBytes.fill(RAM_BYTES);
  world.table.freeBytes.fill(0);
  world.table.steadyBytes.fill(0);
  const planned = plan(world.host(), world.table, world.config, world.state);
  t.same(planned.actions, [], 'it is not taken yet');
  t.equal(planned.lackingBytes, 0);
  t.end();
});

void t.test('a guest that could take nothing back gets memory of the reserve, down to half of it', (t) => {
  const gave = (firm: boolean, availableBytes: number): number => {
    const guest = { ramBytes: RAM_BYTES, wantsBytes: 500 * MIB, minBytes: 100 * MIB, firm };
    const world = new World(500 * MIB + availableBytes, [vm({ ...guest, band: 0 })]);
    world.table.targetBytes.fill(490 * MIB);
    world.table.actualBytes.fill(490 * MIB);
    world.table.currentBytes.fill(500 * MIB);
    world.table.availableBytes.fill(10 * MIB);
    const [action] = targets(world);
    return action === undefined ? 0 : Math.round((action.fromBytes - action.toBytes) / MIB);
  };
  // Of a host of 600 MiB, the reserve is 60 MiB, and of 550 MiB, 55 MiB.
  t.equal(gave(false, 50 * MIB), 0);
  t.equal(gave(true, 50 * MIB), 23, 'down to half');
  t.equal(gave(true, 30 * MIB), 4, 'less than it is moved by otherwise');
  t.equal(gave(true, 20 * MIB), 0, 'and no further');
  t.end();
});

void t.test('a guest that would end programs gets memory of the host that is not for VMs', (t) => {
  const gave = (firm: boolean, beyondBytes: number): number => {
    const guest = { ramBytes: RAM_BYTES, wantsBytes: 500 * MIB, minBytes: 100 * MIB, firm };
    const world = new World(500 * MIB, [vm({ ...guest, band: 0 })]);
    world.table.targetBytes.fill(490 * MIB);
    world.table.actualBytes.fill(490 * MIB);
    world.table.currentBytes.fill(500 * MIB);
    world.table.availableBytes.fill(10 * MIB);
    const { actions } = plan({ ...world.host(), beyondBytes }, world.table, world.config, world.state);
    const [action] = actions.filter(({ kind }) => kind === 'target') as TargetAction[];
    return action === undefined ? 0 : Math.round((action.fromBytes - action.toBytes) / MIB);
  };
  t.equal(gave(true, 0), 0);
  t.equal(gave(true, 1000 * MIB), 86, 'as much as it is short of');
  t.equal(gave(true, 110 * MIB), 35, 'what the host has beyond as much as the reserve, and of the reserve');
  t.equal(gave(false, 1000 * MIB), 0);
  t.end();
});

void t.test(
  'a guest that could take nothing back keeps memory that would bring the host next to nothing',
  (t) => {
    const took = (firm: boolean, touchedBytes: number): number => {
      const guest = { ramBytes: RAM_BYTES, wantsBytes: 100 * MIB, minBytes: 100 * MIB, firm, touchedBytes };
      const world = new World(touchedBytes + 10 * MIB, [
        vm({ ...guest, band: 1 }),
        vm({ ...guest, touchedBytes: 0, wantsBytes: 0 }),
      ]);
      world.now = 100;
      return Math.round(
        targets(world).reduce((sum, { fromBytes, toBytes }) => sum + toBytes - fromBytes, 0) / MIB,
      );
    };
    t.ok(took(false, 300 * MIB) > 700, 'all that it never touched, and a little more');
    t.equal(took(true, 300 * MIB), 0);
    t.ok(took(true, 900 * MIB) > 150);
    t.end();
  },
);
