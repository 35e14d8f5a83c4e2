// One rule of plan() each, at the numbers where it decides. Of a host with T: reserve T / 10, goal T / 8.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Action, TargetAction } from '../../src/policy/action.js';
import { Columns } from '../../src/policy/columns.js';
import { Facts } from '../../src/policy/facts.js';
import { SELF_SIZED, type PolicyConfig } from '../../src/policy/inputs.js';
import { Column, get, put } from '../../src/policy/state.js';
import { CONFIG, MIB, plan, vm, World } from './world.js';

const ROOT = join(import.meta.dirname, '../../..');

/** In MiB. What is left out: all touched, nothing in the balloon, none of it idle, no stall. */
interface Row {
  band?: number;
  min?: number;
  max?: number;
  target?: number;
  actual?: number;
  current?: number;
  idle?: number;
  stalls?: boolean;
  cache?: 'beside' | 'alone';
  /** In the page cache balloon; all of it is counted in `idle`, as Linux does. */
  cached?: number;
  /** Of that; left out: what is above the floor. */
  limit?: number;
}

const RAM_MIB = 1000;
const NOW = 1000;

/** A host with so much available, and VMs of 1000 MiB. */
function scene(availableMib: number, rows: readonly Row[], change: Partial<PolicyConfig> = {}): World {
  const usable = ({ actual, target, cached = 0 }: Row): number => RAM_MIB - (actual ?? target ?? 0) - cached;
  const used = rows.reduce((sum, row) => sum + (row.current ?? usable(row)), 0);
  const world = new World(
    (used + availableMib) * MIB,
    rows.map(({ band = 2, min = 100, max = RAM_MIB, cache = 'none' as const }) =>
      vm({ band, ramBytes: RAM_MIB * MIB, minBytes: min * MIB, maxBytes: max * MIB, cache }),
    ),
    { ...CONFIG, ...change },
  );
  rows.forEach((row, n) => {
    world.table.targetBytes[n] = (row.target ?? 0) * MIB;
    world.table.actualBytes[n] = (row.actual ?? row.target ?? 0) * MIB;
    world.table.currentBytes[n] = (row.current ?? usable(row)) * MIB;
    world.table.availableBytes[n] = (row.idle ?? 0) * MIB;
    world.table.cachedBytes[n] = (row.cached ?? 0) * MIB;
    world.table.cacheLimitBytes[n] = (row.limit ?? RAM_MIB - (row.min ?? 100)) * MIB;
    world.table.freeBytes[n] = 0;
    world.table.stallPercent[n] = row.stalls === true ? 30 : 0;
  });
  world.now = NOW;
  return world;
}

function actions(world: World): readonly Action[] {
  return plan(world.host(), world.table, world.config, world.state).actions;
}

function targets(world: World): TargetAction[] {
  return actions(world).filter((action) => action.kind === 'target');
}

/** What each row is taken, less what it is given, in MiB. */
function moved(world: World): number[] {
  const sums = world.vms.map(() => 0);
  for (const { row, fromBytes, toBytes } of targets(world))
    sums[row] = (sums[row] ?? 0) + (toBytes - fromBytes) / MIB;
  return sums;
}

void t.test('the floor is the floor, however short the host is, and the ceiling the ceiling', (t) => {
  const busy: Row = { min: 1000 };
  t.same(moved(scene(1, [{ min: 700, idle: 900 }, busy, busy, busy, busy])), [300, 0, 0, 0, 0]);
  const rich = scene(5000, [{ max: 550, target: 500, idle: 400 }]);
  t.same(moved(rich), [-50]);
  t.end();
});

void t.test('what is idle goes before what is used', (t) => {
  const [idle = 0, busy = 0] = moved(scene(150, [{ idle: 500 }, {}]));
  t.ok(idle > 0);
  t.equal(busy, 0);
  t.end();
});

void t.test('a guest that is short is left alone for the host, until half of the reserve is gone', (t) => {
  t.same(moved(scene(80, [{ target: 100, stalls: true }])), [0]);
  t.ok((moved(scene(40, [{ target: 100, stalls: true }]))[0] ?? 0) > 0);
  t.end();
});

void t.test('nobody is idle beyond what it may use, whatever it claims', (t) => {
  for (const idle of [1e9, Infinity]) {
    const [taken] = targets(scene(80, [{ idle }]));
    t.ok((taken?.reason.idleBytes ?? Infinity) <= RAM_MIB * MIB, `a claim of ${idle} MiB`);
  }
  for (const idle of [-1e9, NaN]) t.same(moved(scene(300, [{ idle }])), [0]);
  t.end();
});

void t.test('the highest band is relieved first', (t) => {
  const short: Row = { target: 500, stalls: true };
  const [bronze = 0, gold = 0] = moved(
    scene(300, [
      { ...short, band: 2 },
      { ...short, band: 0 },
    ]),
  );
  t.ok(gold < -100, `gold is given ${-gold} MiB`);
  t.ok(bronze >= 0, 'bronze is given nothing');
  t.end();
});

void t.test('a refund leaves the margin', (t) => {
  // Goal 250, and it gives back what is beyond 250 + 50.
  t.same(
    moved(scene(310, [{ target: 500, current: 50, idle: 450 }, { current: 1640 - 1000 }, {}])),
    [0, 0, 0],
  );
  const [given = 0] = moved(scene(600, [{ target: 500, current: 50, idle: 450 }, { current: 640 }, {}]));
  t.ok(given < 0, 'what is beyond it is given');
  t.end();
});

void t.test('a host that was short is filled up beyond its reserve, another is left alone', (t) => {
  const world = scene(115, [{ idle: 500 }]);
  t.same(moved(world), [0]);
  world.state = { ...world.state, short: true };
  t.ok((moved(world)[0] ?? 0) > 0);
  t.end();
});

void t.test('who was moved one way is not moved the other way for a while', (t) => {
  const poor = scene(80, [{ idle: 500 }]);
  put(poor.state, Column.givenSeconds, 0, NOW - CONFIG.holdSeconds + 1);
  t.same(moved(poor), [0], 'given just now');
  put(poor.state, Column.givenSeconds, 0, NOW - CONFIG.holdSeconds);
  t.ok((moved(poor)[0] ?? 0) > 0);
  const rich = scene(2000, [{ target: 500, idle: 400 }]);
  put(rich.state, Column.takenSeconds, 0, NOW - CONFIG.holdSeconds + 1);
  t.same(moved(rich), [0], 'taken just now');
  put(rich.state, Column.takenSeconds, 0, NOW - CONFIG.holdSeconds);
  t.ok((moved(rich)[0] ?? 0) < 0);
  t.end();
});

void t.test(
  'a target rises no faster than its ramp, the urgent one when half of the reserve is gone, and between the two before',
  (t) => {
    const between = scene(80, [{ idle: 900 }], { urgentRampShare: 0.02 });
    put(between.state, Column.takenSeconds, 0, NOW - 2);
    const { totalBytes, availableBytes } = between.host();
    const urgency = 2 * (1 - availableBytes / (CONFIG.reserveShare * totalBytes));
    t.ok(urgency > 0.1 && urgency < 0.9, `${urgency}`);
    const ramp = CONFIG.rampShare + urgency * (0.02 - CONFIG.rampShare);
    t.ok(Math.abs((moved(between)[0] ?? 0) - 2 * ramp * RAM_MIB) < 1, `${moved(between)[0]}`);
    const urgent = scene(1, [{ idle: 900 }, {}, {}, {}, {}], { urgentRampShare: 0.05 });
    for (let row = 0; row < 5; row++) put(urgent.state, Column.takenSeconds, row, NOW - 2);
    t.equal(moved(urgent)[0], 2 * 0.05 * RAM_MIB);
    t.end();
  },
);

void t.test('no more of what is idle than the tax allows', (t) => {
  t.same(moved(scene(80, [{ band: 0, idle: 400 }], { idleTax: 0.04 })), [16]);
  t.end();
});

void t.test('half of the reserve is for nobody, whatever is on its way', (t) => {
  const [gold] = moved(
    scene(80, [
      { band: 0, target: 500, stalls: true },
      { target: 900, actual: 0, min: 0 },
    ]),
  );
  t.equal(gold, 0);
  const [more = 0] = moved(
    scene(200, [
      { band: 0, target: 500, stalls: true },
      { target: 900, actual: 0, min: 0 },
    ]),
  );
  t.ok(more < -100 && more >= -(200 - 85), `gave ${-more} MiB`);
  t.end();
});

void t.test('what was given and is not touched yet is not given again', (t) => {
  const world = scene(350, [{ current: 700 }, { band: 0, target: 500, stalls: true }]);
  t.ok((moved(world)[1] ?? 0) < 0, 'it is there');
  put(world.state, Column.givenBytes, 0, 300 * MIB);
  t.equal(moved(world)[1], 0, 'it is promised');
  t.end();
});

void t.test('who yielded has all of its grace time when it is asked again', (t) => {
  const world = scene(50, [{ target: 100, actual: 0, idle: 80 }]);
  put(world.state, Column.markBytes, 0, 100 * MIB);
  put(world.state, Column.markSeconds, 0, NOW - 1);
  // It yields, and the host has what it needs.
  world.table.actualBytes[0] = 100 * MIB;
  world.table.currentBytes[0] = 900 * MIB;
  world.step();
  t.equal(get(world.state, Column.markBytes, 0), 0);
  world.now += 100;
  world.table.targetBytes[0] = 400 * MIB;
  world.table.actualBytes[0] = 100 * MIB;
  world.table.currentBytes[0] = 1000 * MIB;
  t.same(
    actions(world).filter(({ kind }) => kind === 'limit'),
    [],
  );
  t.end();
});

void t.test('force ends before more may be used', (t) => {
  const world = scene(2000, [{ target: 500, actual: 400, min: 600 }]);
  put(world.state, Column.rung, 0, 2);
  const [first, second] = actions(world);
  t.match(first, { kind: 'limit', row: 0, rung: 0, highBytes: null, maxBytes: null });
  t.match(second, { kind: 'target', row: 0 });
  t.end();
});

void t.test('who yields to nothing is killed where its band says so, else left alone', (t) => {
  const at = (kill: boolean): readonly Action[] => {
    const bands = CONFIG.bands.map((band) => ({ ...band, kill }));
    const world = scene(10, [{ target: 500, actual: 0 }], { bands });
    world.state = { ...world.state, short: true };
    put(world.state, Column.rung, 0, 4);
    put(world.state, Column.markBytes, 0, 500 * MIB);
    put(world.state, Column.markSeconds, 0, NOW - CONFIG.forceSeconds);
    return actions(world);
  };
  t.match(at(true).at(-1), { kind: 'kill', row: 0 });
  t.match(
    at(false)
      .map(({ kind, reason }) => `${kind} ${reason.cause}`)
      .slice(-2),
    ['limit withstood', 'target withstood'],
  );
  t.end();
});

void t.test('a kind of device that is slower is moved in larger steps, and waited for longer', (t) => {
  const forced = (slowness: number, owed: number, rung: number, waited: number): readonly string[] => {
    const world = scene(10, [{ target: 500, actual: 500 - owed }]);
    world.state = { ...world.state, short: true };
    world.table.slowness[0] = slowness;
    put(world.state, Column.rung, 0, rung);
    put(world.state, Column.markBytes, 0, owed * MIB);
    put(world.state, Column.markSeconds, 0, NOW - waited);
    const limits = actions(world).filter(({ kind }) => kind === 'limit');
    return limits.map(({ reason }) => reason.cause);
  };
  const { willSeconds, forceSeconds } = CONFIG;
  t.same(forced(0, 500, 0, willSeconds), ['not-yielding']);
  t.same(forced(1, 500, 0, willSeconds), [], 'it has twice the time');
  t.same(forced(1, 500, 0, 2 * willSeconds), ['not-yielding']);
  t.same(forced(0, 500, 2, forceSeconds), ['not-yielding']);
  t.same(forced(1, 500, 2, forceSeconds), []);
  t.same(forced(1, 500, 2, 2 * forceSeconds), ['not-yielding']);
  const world = scene(100, [{}, {}]);
  world.table.slowness[1] = 1;
  const { quantum } = new Facts(world.host(), world.table, world.config, world.state, new Columns()).columns;
  t.equal(quantum[1], 2 * (quantum[0] ?? 0), 'steps of twice the size');
  t.end();
});

/** The limits of page cache balloons after this plan, in MiB. */
function limits(world: World): number[] {
  const after = Array.from(world.table.cacheLimitBytes, (bytes) => bytes / MIB);
  for (const action of actions(world))
    if (action.kind === 'cache-limit') after[action.row] = action.toBytes / MIB;
  return after;
}

void t.test(
  'a page cache balloon holds nothing while the host has room, and all but the floor when it is short',
  (t) => {
    const rows: Row[] = [{ cache: 'beside', limit: 0, min: 300 }, { cache: 'alone', limit: 0 }, {}];
    t.same(actions(scene(2000, rows)), [], '40 % are available');
    const world = scene(200, rows);
    t.match(
      actions(world).filter(({ kind }) => kind === 'cache-limit'),
      [
        { row: 0, fromBytes: 0, toBytes: 700 * MIB, reason: { cause: 'sizes-itself' } },
        { row: 1, fromBytes: 0, toBytes: 900 * MIB, reason: { cause: 'sizes-itself' } },
      ],
    );
    world.table.cacheLimitBytes.set([700 * MIB, 900 * MIB]);
    t.same(limits(world), [700, 900, 900], 'and that is said once');
    world.table.minBytes[0] = 400 * MIB;
    t.same(limits(world), [600, 900, 900], 'the floor was raised');
    world.table.flags[0] = SELF_SIZED;
    world.table.cacheLimitBytes[1] = 0;
    t.same(limits(world), [700, 900, 900], 'an operator has it in hand');
    t.end();
  },
);

void t.test(
  'a guest that is short of more than the host has over makes all page cache balloons grow',
  (t) => {
    const rows = (target: number): Row[] => [
      { cache: 'beside', limit: 0, idle: 500 },
      { band: 0, target, stalls: true },
    ];
    // A guest that stalls gets 200 MiB, and beyond the goal of 225 MiB there are 475, and then 75.
    t.equal(limits(scene(700, rows(900)))[0], 0);
    t.equal(limits(scene(300, rows(500)))[0], 900);
    t.end();
  },
);

void t.test(
  'before the host is short, page cache balloons grow by as much as it lacks, the lowest band first',
  (t) => {
    // Of 5000 MiB: goal 625, and 500 beyond it should be available.
    const own = ({ current, cached = 0 }: Row): number => current ?? RAM_MIB - cached;
    const at = (gold: Row, bronze: Row, availableMib = 1000): World =>
      scene(availableMib, [
        { cache: 'beside', limit: 0, ...gold, band: 0 },
        { cache: 'beside', limit: 0, ...bronze },
        { current: 5000 - availableMib - own(gold) - own(bronze) },
      ]);
    t.same(limits(at({}, {})).slice(0, 2), [0, 125]);
    t.same(limits(at({}, {}, 1130)).slice(0, 2), [0, 0]);
    t.same(limits(at({}, { limit: 200, cached: 200 })).slice(0, 2), [0, 325], 'beyond what it holds');
    t.same(limits(at({}, { limit: 200, cached: 100 })).slice(0, 2), [125, 200], 'it has no more to give');
    t.same(limits(at({}, { current: 600 })).slice(0, 2), [0, 525], 'the host has the first 400 already');
    t.match(
      actions(at({}, { current: 600 })).filter(({ kind }) => kind === 'cache-limit'),
      [{ row: 1, toBytes: 525 * MIB, reason: { cause: 'makes-room', shedBytes: 400 * MIB } }],
    );
    const onItsWay = at({}, { limit: 125, idle: 500 });
    put(onItsWay.state, Column.letSeconds, 1, NOW - 1);
    t.same(limits(onItsWay).slice(0, 2), [0, 125], 'it is about to give that');
    put(onItsWay.state, Column.letSeconds, 1, NOW - CONFIG.willSeconds);
    t.same(limits(onItsWay).slice(0, 2), [125, 125], 'it did not');
    t.end();
  },
);

void t.test(
  'page cache balloons shrink when the host has room again, slowly and the highest band first',
  (t) => {
    const at = (availableMib: number): World =>
      scene(availableMib, [
        { band: 0, cache: 'beside', cached: 400 },
        { cache: 'beside', cached: 400 },
        { current: 10_000 - availableMib - 1200 },
      ]);
    // Of 10,000 MiB: goal 1250, and with 2000 beyond it there is room.
    t.same(limits(at(3250)).slice(0, 2), [900, 900]);
    t.same(limits(at(2300)).slice(0, 2), [900, 900], 'nor do they grow');
    const [gold, bronze] = limits(at(3300));
    t.same([gold, bronze], [350, 900]);
    t.same(limits(at(4000)).slice(0, 2), [300, 300], 'no faster than the ramp');
    const [action] = actions(at(3300));
    t.match(action, { kind: 'cache-limit', row: 0, reason: { cause: 'keeps-cache' } });
    const held = at(4000);
    put(held.state, Column.letSeconds, 0, NOW - CONFIG.holdSeconds + 1);
    t.same(limits(held).slice(0, 2), [900, 300], 'let give just now');
    const empty = at(3400);
    empty.table.cachedBytes[1] = 0;
    t.same(limits(empty).slice(0, 2), [300, 0], 'it holds nothing');
    t.end();
  },
);

void t.test('what a guest gave by itself is not taken again, and to take more goes beyond it', (t) => {
  const gave: Row = { cache: 'beside', cached: 600, idle: 620 };
  // Of 1000 MiB 620 are idle: 600 of these are given, and that is more than the tax allows.
  t.same(moved(scene(150, [gave, { idle: 500 }]))[0], 0, 'another has something idle');
  const [taken = 0] = moved(scene(40, [gave]));
  t.ok(taken > 600 && taken < 700, `${taken} MiB, with the 600 that it gave`);
  const [first] = targets(scene(40, [gave]));
  t.match(first, { reason: { shedBytes: 600 * MIB, idleBytes: 20 * MIB } });
  t.same(moved(scene(40, [{ ...gave, min: 400 }])), [0], 'it is at its floor by itself');
  const busy: Row = { min: 1000 };
  const [charged = 0] = moved(scene(95, [{ ...gave, current: 1000 }]));
  t.ok(charged > 600, `${charged} MiB, whatever else its cgroup is charged for`);
  const tall: Row = { band: 0, cache: 'beside', cached: 500, idle: 800 };
  const [taxed] = moved(scene(400, [tall, busy, busy, busy, busy], { rampShare: 0.05 }));
  t.equal(taxed, 0.75 * 800, 'the tax counts what it gave');
  const beyond: Row = { cache: 'beside', target: 200, cached: 500, min: 400 };
  t.same(moved(scene(80, [beyond, {}])), moved(scene(80, [{ ...beyond, min: 300 }, {}])), 'nor from others');
  t.same(moved(scene(1, [{ ...gave, cached: 850 }, busy, busy, busy, busy]))[0], 900, 'never below');
  t.end();
});

void t.test('what a guest was given and gave back by itself can be given again', (t) => {
  const given = (cached: number, cache: Row['cache'] = 'beside'): number => {
    const rows: Row[] = [
      { cache, cached, current: 700 },
      { band: 0, target: 500, stalls: true },
    ];
    const world = scene(350, rows);
    put(world.state, Column.givenBytes, 0, 300 * MIB);
    return moved(world)[1] ?? 0;
  };
  t.equal(given(0), 0, 'it may still touch that');
  t.ok(given(300) < 0);
  t.ok(given(0, 'alone') < 0, 'nothing was taken that could be given');
  t.end();
});

void t.test('who was let give by itself just now is left alone for a while, unless there is need', (t) => {
  const row: Row = { cache: 'beside', limit: 0, idle: 500 };
  t.same(moved(scene(80, [row])), [0]);
  t.ok((moved(scene(40, [row]))[0] ?? 0) > 0, 'half of the reserve is gone');
  t.ok((moved(scene(80, [{ ...row, limit: 900 }]))[0] ?? 0) > 0, 'it was let long ago');
  t.end();
});

void t.test('a ceiling is a lower limit: what the guest gave by itself does not add to it', (t) => {
  const world = scene(5000, [{ cache: 'beside', cached: 400, max: 950 }]);
  t.same(moved(world), [50]);
  t.end();
});

void t.test('who has a page cache balloon only is asked for nothing: by will it gives, or by force', (t) => {
  const world = scene(40, [{ cache: 'alone', cached: 500 }]);
  world.state = { ...world.state, short: true };
  const step = (seconds: number): readonly Action[] => {
    world.now += seconds;
    const { actions: planned, next } = plan(world.host(), world.table, world.config, world.state);
    world.state = next;
    return planned;
  };
  const expected = (): number => get(world.state, Column.expectedBytes, 0) / MIB;
  t.same(step(0), []);
  t.ok(expected() > 500 && expected() < 600, `${expected()} MiB, with the 500 that it gave`);
  // As much as it is expected to give in all, the host does not have.
  world.table.currentBytes[0] = (RAM_MIB - 10) * MIB - expected() * MIB;
  world.table.cachedBytes[0] = expected() * MIB;
  t.same(step(CONFIG.willSeconds), [], 'it gave that');
  t.equal(get(world.state, Column.markBytes, 0), 0);
  world.table.currentBytes[0] = 500 * MIB;
  world.table.cachedBytes[0] = 500 * MIB;
  step(1);
  const until = world.now + CONFIG.willSeconds;
  while (world.now < until - 1) t.same(step(1), [], 'it has its grace time');
  const [forced] = step(1);
  t.match(forced, { kind: 'limit', row: 0, rung: 1, reason: { cause: 'not-yielding' } });
  const { highBytes } = forced as { highBytes: number };
  t.ok(highBytes < 500 * MIB && highBytes > RAM_MIB * MIB - expected() * MIB, 'in steps');
  world.table.currentBytes[0] = RAM_MIB * MIB - expected() * MIB;
  t.match(step(1), [{ kind: 'limit', rung: 0, reason: { cause: 'yielded' } }]);
  t.end();
});

void t.test('nothing is taken from others for who cannot be given anything', (t) => {
  const world = scene(240, [{ cache: 'alone', band: 0, stalls: true }, { idle: 500 }]);
  put(world.state, Column.expectedBytes, 0, 50 * MIB);
  t.same(targets(world), []);
  t.end();
});

void t.test('nobody is forced below a floor that was raised', (t) => {
  const world = scene(10, [{ cache: 'alone', min: 300 }]);
  put(world.state, Column.expectedBytes, 0, 850 * MIB);
  put(world.state, Column.rung, 0, 2);
  put(world.state, Column.markBytes, 0, 700 * MIB);
  put(world.state, Column.markSeconds, 0, NOW - CONFIG.forceSeconds);
  t.match(actions(world), [{ kind: 'limit', rung: 3, highBytes: 300 * MIB }]);
  t.end();
});

void t.test('docs/policy.md explains each cause', (t) => {
  const [, table = ''] = readFileSync(join(ROOT, 'docs/policy.md'), 'utf8').split('### Causes');
  const explained = [...(table.split('\n## ')[0] ?? '').matchAll(/^\| `([a-z-]+)` \|/gm)].map(
    ([, cause]) => cause,
  );
  const type =
    /export type Cause =(.*?';)/s.exec(readFileSync(join(ROOT, 'src/policy/action.ts'), 'utf8'))?.[1] ?? '';
  const causes = [...type.matchAll(/^ {2}\| '([a-z-]+)'/gm)].map(([, cause]) => cause);
  t.ok(causes.length > 10);
  t.same(explained.sort(), causes.sort());
  t.end();
});
