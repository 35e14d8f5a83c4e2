import fc from 'fast-check';
import t from 'tap';
import { Column, get, MAX_RUNG } from '../../src/policy/state.js';
import type { Action } from '../../src/policy/action.js';
import { CONFIG, MIB, plan, vm, World, type WorldVm } from './world.js';

const worldVm: fc.Arbitrary<WorldVm> = fc
  .record({
    band: fc.nat(2),
    ramBytes: fc.integer({ min: 64, max: 16384 }).map((mib) => mib * MIB),
    min: fc.double({ min: 0, max: 1, noNaN: true }),
    max: fc.double({ min: 0, max: 1, noNaN: true }),
    wants: fc.double({ min: 0, max: 1.2, noNaN: true }),
    touched: fc.double({ min: 0, max: 1, noNaN: true }),
    weight: fc.constantFrom(1, 2, 4),
    refuses: fc.boolean(),
    limitable: fc.boolean(),
    slowness: fc.constantFrom(0, 0, 1, 3),
    firm: fc.constantFrom(false, false, true),
    cache: fc.constantFrom('none', 'none', 'beside', 'alone'),
  })
  .map(({ min, max, wants, touched, ...rest }) => {
    const [low, high] = min < max ? [min, max] : [max, min];
    const page = (share: number): number => Math.floor((share * rest.ramBytes) / 4096) * 4096;
    return {
      ...rest,
      minBytes: page(low),
      maxBytes: page(high),
      touchedBytes: page(touched),
      wantsBytes: page(wants),
    };
  });

/** Hosts from one that has too little for anything to one that has more than all want. */
const world = fc
  .record({
    vms: fc.array(worldVm, { minLength: 1, maxLength: 8 }),
    host: fc.double({ min: 0.3, max: 1.5, noNaN: true }),
    demands: fc.array(fc.tuple(fc.nat(7), fc.double({ min: 0, max: 1.2, noNaN: true })), { maxLength: 6 }),
  })
  .map(({ vms, host, demands }) => ({
    totalBytes: Math.round(host * vms.reduce((sum, { ramBytes }) => sum + ramBytes, 0)),
    vms,
    demands,
  }));

type Case = typeof world extends fc.Arbitrary<infer T> ? T : never;

/** Lets demands change every 20 s, and looks at each step. */
function run(
  { totalBytes, vms, demands }: Case,
  look: (world: World, actions: readonly Action[]) => void,
): World {
  const w = new World(
    totalBytes,
    vms.map((each) => ({ ...each })),
  );
  for (const demand of [null, ...demands]) {
    const changed = demand === null ? undefined : w.vms[demand[0] % w.vms.length];
    if (changed !== undefined && demand !== null)
      changed.wantsBytes = Math.floor(demand[1] * changed.ramBytes);
    for (let second = 0; second < 20; second++) look(w, w.step().actions);
  }
  return w;
}

const RUNS = { numRuns: 300 };

void t.test('floors are never crossed, targets are whole pages within RAM', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      run(given, (w, actions) => {
        for (const action of actions) {
          if (action.kind !== 'target') continue;
          const { ramBytes, minBytes } = w.vms[action.row] ?? vm();
          if (action.toBytes > ramBytes - minBytes) throw new Error('below the floor');
          if (action.toBytes < 0 || action.toBytes % 4096 !== 0) throw new Error('no target');
        }
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('a guest that could take nothing back keeps what it uses, a tenth, and 96 MiB', (t) => {
  const firm = { firm: true, cache: 'none' } as const;
  const firmWorld = world.map(({ vms, ...rest }) => ({
    ...rest,
    vms: vms.map((each) => ({ ...each, ...firm, maxBytes: each.ramBytes })),
  }));
  let taken = 0;
  fc.assert(
    fc.property(firmWorld, (given) => {
      run(given, (w, actions) => {
        for (const action of actions) {
          if (action.kind !== 'target' || action.toBytes <= action.fromBytes) continue;
          taken++;
          const { ramBytes, wantsBytes } = w.vms[action.row] ?? vm();
          const keeps = ramBytes - action.toBytes;
          const headroom = 0.1 * keeps + 96 * MIB * Math.max(1, ramBytes / (8192 * MIB));
          if (wantsBytes + headroom > keeps + 1) throw new Error(`keeps ${keeps} and uses ${wantsBytes}`);
        }
      });
    }),
    RUNS,
  );
  t.ok(taken > 10, `memory was taken ${taken} times`);
  t.end();
});

void t.test('nobody is given more than its ceiling', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      run(given, (w, actions) => {
        for (const action of actions) {
          if (action.kind !== 'target' || action.toBytes > action.fromBytes) continue;
          if (action.reason.cause === 'withstood') continue;
          const { ramBytes, maxBytes } = w.vms[action.row] ?? vm();
          if (action.toBytes < ramBytes - maxBytes) throw new Error('above the ceiling');
        }
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('what is given is there: over half of the reserve, and what is on its way', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      let available = Infinity;
      run(given, (w, actions) => {
        const gives = actions.filter((a) => a.kind === 'target' && a.reason.cause !== 'withstood');
        const gave = gives.reduce(
          (sum, a) => sum + (a.kind === 'target' ? Math.max(0, a.fromBytes - a.toBytes) : 0),
          0,
        );
        const seen = gives[0]?.reason.hostAvailableBytes ?? available;
        available = seen;
        const most = Math.max(0, seen - (w.config.reserveShare * w.totalBytes) / 2);
        if (gave > most + 1) throw new Error(`gave ${gave} of ${most}`);
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('no action without a reason that says something', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      run(given, (w, actions) => {
        for (const { reason, row } of actions) {
          if (!(row >= 0 && row < w.vms.length)) throw new Error('nobody');
          if (!(reason.hostTotalBytes > 0) || !(reason.reserveBytes > 0)) throw new Error('no figures');
          if (reason.counterpart === row) throw new Error('takes from itself for itself');
        }
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('the same input gives the same plan, and is left as it was', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const w = run(given, () => undefined);
      w.now += 1;
      const before = JSON.stringify([w.table, w.state]);
      const first = JSON.stringify(plan(w.host(), w.table, w.config, w.state));
      // Another call in between leaves nothing behind.
      plan(new World(MIB, [vm()]).host(), new World(MIB, [vm()]).table, CONFIG, new World(MIB, [vm()]).state);
      if (JSON.stringify(plan(w.host(), w.table, w.config, w.state)) !== first) throw new Error('differs');
      if (JSON.stringify([w.table, w.state]) !== before) throw new Error('changed its input');
    }),
    RUNS,
  );
  t.end();
});

void t.test('force waits for the grace time, goes up one rung at a time and comes down in reverse', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const rungs = given.vms.map(() => 0);
      const since = given.vms.map(() => -Infinity);
      const owedSince = given.vms.map(() => Infinity);
      run(given, (w, actions) => {
        for (const action of actions) {
          const { row } = action;
          if (action.kind === 'kill') throw new Error('killed where nobody allowed it');
          if (action.kind !== 'limit') continue;
          const was = rungs[row] ?? 0;
          if (action.rung > was) {
            if (action.rung !== was + 1) throw new Error('a rung was left out');
            const pace = 1 + (w.vms[row]?.slowness ?? 0);
            const grace = pace * (was === 0 ? w.config.willSeconds : w.config.forceSeconds);
            const from = was === 0 ? (owedSince[row] ?? 0) : (since[row] ?? 0);
            if (w.now - from < grace) throw new Error('force before the grace time was over');
          } else if (action.rung !== was - 1 && action.rung !== 0) throw new Error('not in reverse');
          if ((action.maxBytes !== null) !== action.rung >= MAX_RUNG)
            throw new Error('memory.max at a wrong rung');
          if ((action.highBytes !== null) !== action.rung >= 1)
            throw new Error('memory.high at a wrong rung');
          rungs[row] = action.rung;
          since[row] = w.now;
        }
        w.vms.forEach((_, row) => {
          owedSince[row] = w.owes(row) ? Math.min(owedSince[row] ?? Infinity, w.now) : Infinity;
        });
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('limits are raised before a balloon deflates, and nobody is held below what it may use', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const held = given.vms.map(() => Infinity);
      run(given, (w, actions) => {
        for (const action of actions) {
          const { row } = action;
          if (action.kind === 'limit')
            held[row] = Math.min(action.highBytes ?? Infinity, action.maxBytes ?? Infinity);
          if (action.kind !== 'target') continue;
          const { ramBytes } = w.vms[row] ?? vm();
          const more = action.toBytes < action.fromBytes;
          if (more && ramBytes - action.toBytes > (held[row] ?? Infinity))
            throw new Error('deflated below a limit');
        }
        w.vms.forEach((_, row) => {
          if (w.grant(row) > (held[row] ?? Infinity)) throw new Error('held below its target');
        });
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('refunds are complete: with memory over, nothing stays taken or held', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const w = run(
        { ...given, vms: given.vms.map((each) => ({ ...each, maxBytes: each.ramBytes })) },
        () => undefined,
      );
      const rich = new World(100 * w.totalBytes, w.vms, w.config);
      rich.table.targetBytes.set(w.table.targetBytes);
      rich.table.actualBytes.set(w.table.actualBytes);
      rich.state = w.state;
      rich.now = w.now;
      for (let second = 0; second < 300; second++) rich.step();
      if (rich.table.targetBytes.some((bytes) => bytes !== 0)) throw new Error('something stays taken');
      if (rich.vms.some((_, row) => get(rich.state, Column.rung, row) !== 0))
        throw new Error('something stays held');
    }),
    RUNS,
  );
  t.end();
});

void t.test('a constant load comes to rest', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const honest = given.vms.map((each) => ({ ...each, refuses: false }));
      const w = run({ ...given, vms: honest, demands: [] }, () => undefined);
      for (let second = 0; second < 280; second++) w.step();
      w.moves.fill(0);
      for (let second = 0; second < 300; second++) w.step();
      if (w.moves.some((moves) => moves > 5)) throw new Error(`moves in 5 minutes: ${w.moves.join(' ')}`);
    }),
    { numRuns: 200 },
  );
  t.end();
});

void t.test('what is taken from the highest band brings the host something', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const w = new World(
        given.totalBytes,
        given.vms.map((each) => ({ ...each })),
      );
      for (let second = 0; second < 60; second++) {
        const touched = w.table.currentBytes.slice();
        const targets = w.table.targetBytes.slice();
        for (const action of w.step().actions) {
          if (action.kind !== 'target' || action.toBytes <= action.fromBytes) continue;
          const { ramBytes, band } = w.vms[action.row] ?? vm();
          if (action.reason.cause === 'above-ceiling' || band > 0) continue;
          const hollow = ramBytes - (targets[action.row] ?? 0) - (touched[action.row] ?? 0);
          if (action.toBytes - action.fromBytes < hollow - 4096)
            throw new Error('it takes what is not there');
        }
      }
    }),
    RUNS,
  );
  t.end();
});

void t.test('what a guest gave by itself is taken along with more, or left alone', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      run(given, (w, actions) => {
        for (const action of actions) {
          if (action.kind !== 'target') continue;
          if (w.vms[action.row]?.cache === 'alone') throw new Error('asks who cannot be asked');
          const { cause, shedBytes } = action.reason;
          if (cause === 'above-ceiling' || action.toBytes <= action.fromBytes) continue;
          if (action.toBytes - action.fromBytes < shedBytes)
            throw new Error('takes memory that the guest shed');
        }
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test(
  'a page cache balloon may hold what is above the floor: all of it on a host that is short',
  (t) => {
    fc.assert(
      fc.property(world, (given) => {
        run(given, (w) => {
          w.vms.forEach(({ cache, ramBytes, minBytes }, row) => {
            const limit = w.table.cacheLimitBytes[row] ?? NaN;
            const most = cache === 'none' ? 0 : ramBytes - minBytes;
            if (!(limit >= 0 && limit <= most && limit % 4096 === 0)) throw new Error('no limit');
            if (w.state.short && limit !== most) throw new Error('it may hold less on a host that is short');
          });
        });
      }),
      RUNS,
    );
    t.end();
  },
);

void t.test('on a host that has room, guests keep their page cache in the end', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const w = run(given, () => undefined);
      const rich = new World(100 * w.totalBytes, w.vms, w.config);
      rich.table.cacheLimitBytes.set(w.table.cacheLimitBytes);
      rich.state = w.state;
      rich.now = w.now;
      for (let second = 0; second < 300; second++) rich.step();
      if (rich.table.cacheLimitBytes.some((bytes) => bytes !== 0))
        throw new Error('a balloon holds some of it');
      if (rich.table.cachedBytes.some((bytes) => bytes !== 0)) throw new Error('a balloon is not empty');
    }),
    RUNS,
  );
  t.end();
});

void t.test('relief is for guests that have little left', (t) => {
  fc.assert(
    fc.property(world, (given) => {
      const w = new World(
        given.totalBytes,
        given.vms.map((each) => ({ ...each })),
      );
      for (let second = 0; second < 60; second++) {
        // All of them reclaim something all the time.
        w.table.stallPercent.fill(20);
        const available = w.table.availableBytes.slice();
        const usable = w.vms.map(({ ramBytes }, row) => ramBytes - (w.table.actualBytes[row] ?? 0));
        for (const action of w.step().actions) {
          if (action.kind !== 'target' || action.reason.cause !== 'guest-short') continue;
          if ((available[action.row] ?? 0) >= 0.1 * (usable[action.row] ?? 0))
            throw new Error('gave to somebody with enough');
        }
      }
    }),
    RUNS,
  );
  t.end();
});
