import t from 'tap';
import { Check } from 'typebox/schema';
import { byField } from '../../../protocol/control/limits.js';
import { SCHEMAS } from '../../../protocol/control/schema.js';
import { GIB, vmView } from '../../support/fleet.js';

void t.test('Vm', (t) => {
  const vm = vmView('web1');
  t.ok(Check(SCHEMAS.Vm, vm));
  t.ok(Check(SCHEMAS.Vm, { ...vm, cache: vm.balloon, stats: null, inhibited: 'why', verdict: 'what' }));
  t.ok(
    Check(SCHEMAS.Vm, {
      ...vm,
      cgroup: { path: '/machine.slice', currentBytes: GIB, ...byField(() => null), maxBytes: 2 * GIB },
      policy: { band: 'gold', minBytes: GIB, maxBytes: 4 * GIB, mode: 'auto' },
    }),
  );
  for (const name of SCHEMAS.Vm.required) {
    const rest = Object.fromEntries(Object.entries(vm).filter(([key]) => key !== name));
    t.notOk(Check(SCHEMAS.Vm, rest), `${name} is missing`);
  }
  t.notOk(Check(SCHEMAS.Vm, { ...vm, extra: 1 }));
  t.notOk(Check(SCHEMAS.Vm, { ...vm, state: 'paused' }));
  t.notOk(Check(SCHEMAS.Vm, { ...vm, ramBytes: 1.5 }));
  t.notOk(Check(SCHEMAS.Vm, { ...vm, stats: { VIRTIO_BALLOON_S_MEMFREE: 1 } }), 'stats without an age');
  t.end();
});

void t.test('VmChange is exactly one of memoryBytes, balloonBytes and limits', (t) => {
  t.ok(Check(SCHEMAS.VmChange, { memoryBytes: 0 }));
  t.ok(Check(SCHEMAS.VmChange, { balloonBytes: GIB }));
  t.ok(Check(SCHEMAS.VmChange, { limits: { high: GIB, max: 'follow' } }));
  t.ok(Check(SCHEMAS.VmChange, { limits: { max: 'restore' } }));
  for (const bad of [
    {},
    { memoryBytes: 1, balloonBytes: 1 },
    { memoryBytes: -1 },
    { memoryBytes: 0.5 },
    { memoryBytes: '1G' },
    { memoryBytes: null },
    { memoryBytes: 2 ** 53 },
    { memoryBytes: 1, extra: 1 },
    { limits: {} },
    { limits: { high: '1G' } },
    { limits: { high: null } },
    { limits: { high: 1 }, balloonBytes: 1 },
    [],
    null,
    7,
  ]) {
    t.notOk(Check(SCHEMAS.VmChange, bad), JSON.stringify(bad));
  }
  t.end();
});

void t.test('Inhibit', (t) => {
  t.ok(Check(SCHEMAS.Inhibit, {}));
  t.ok(Check(SCHEMAS.Inhibit, { reason: 'backup läuft' }));
  for (const reason of ['', 'two\nlines', '\x1b[2J', 'x'.repeat(201), 1, null]) {
    t.notOk(Check(SCHEMAS.Inhibit, { reason }), JSON.stringify(reason));
  }
  t.end();
});
