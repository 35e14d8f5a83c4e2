// What the configuration orders of VMs for good, beside what operators order.
import type { ConfigFile } from '../../src/daemon/settings.js';
import { inEachOrder } from '../support/each-order.js';
import { ServedVm } from '../support/served-vm.js';
import { NAME, wire } from '../support/vm-on-the-wire.js';

const MIB = 2 ** 20;
/** Of the VMMs of these tests. */
const RAM_BYTES = 64 * MIB;
const config: ConfigFile = { vm: [{ match: NAME, target: '25%', inhibit: 'it migrates' }] };

inEachOrder('a VM that connects is as the configuration says, and an operator goes before it', async (t) => {
  const { fleet, connect, gone } = wire(t, config);
  await connect('balloon');
  const asConfigured = {
    inhibited: 'it migrates',
    balloon: { targetBytes: 0.75 * RAM_BYTES },
    policy: { mode: 'manual' },
    orders: [{ by: 'configuration' }, { by: 'configuration' }, { by: 'configuration' }],
  };
  t.match(fleet.control.find(NAME), asConfigured);
  await t.rejects(
    fleet.control.setInhibited(NAME, null),
    /configuration inhibits web \(it migrates\): set no inhibit in/,
  );
  await t.rejects(
    fleet.control.changePolicy({ paused: false, vm: NAME }),
    /configuration keeps the policy away/,
  );
  await fleet.control.setTarget(NAME, { memoryBytes: RAM_BYTES });
  await fleet.control.setInhibited(NAME, 'backup');
  const ordered = { inhibited: 'backup', balloon: { targetBytes: 0 } };
  t.match(fleet.control.find(NAME), ordered);
  await gone();
  await connect('balloon');
  t.match(fleet.control.find(NAME), ordered);
  await fleet.control.setInhibited(NAME, null);
  await fleet.control.changePolicy({ paused: false, vm: NAME });
  t.match(fleet.control.find(NAME), asConfigured, 'what is taken back leaves what is configured');
});

inEachOrder('a configuration that is read again takes effect at once', async (t) => {
  const { fleet, connect } = wire(t);
  const device = await connect('balloon');
  await device.give(64);
  t.match(fleet.control.find(NAME), { inhibited: null, orders: [], policy: { mode: 'observe' } });
  fleet.configure(config, []);
  t.match(fleet.control.find(NAME), { inhibited: 'it migrates', balloon: { targetBytes: 0.75 * RAM_BYTES } });
  fleet.configure({ vm: [{ match: '*', policy: 'manual' }] }, []);
  t.match(fleet.control.find(NAME), {
    inhibited: null,
    policy: { mode: 'manual' },
    balloon: { targetBytes: 0 },
  });
  fleet.configure({}, []);
  t.match(fleet.control.find(NAME), { inhibited: null, orders: [], policy: { mode: 'observe' } });
});

for (const mode of ['observe', 'auto'] as const) {
  inEachOrder(`${mode}: a target that was ordered and is taken back`, async (t) => {
    const { fleet, connect } = wire(t, { policy: { mode } });
    await connect('balloon');
    const target = (): number => fleet.control.find(NAME)?.balloon.targetBytes ?? NaN;
    await fleet.control.setTarget(NAME, { balloonBytes: MIB });
    await fleet.control.changePolicy({ paused: false, vm: NAME });
    t.equal(target(), mode === 'auto' ? MIB : 0, 'the policy sets the next one, or the guest has its memory');
    await fleet.control.setTarget(NAME, { balloonBytes: 0 });
    await fleet.control.changePolicy({ paused: true, vm: NAME });
    await fleet.control.changePolicy({ paused: false, vm: NAME });
    t.equal(target(), 0);
  });
}

inEachOrder(
  'a pause that is taken back leaves a target that the policy of an earlier daemon set',
  async (t) => {
    const { served } = await ServedVm.running();
    t.teardown(() => served.close());
    const { vm } = served;
    vm.setPolicyTarget(MIB);
    vm.manual = true;
    vm.manual = false;
    t.equal(vm.figures.targetBytes, MIB, 'the operator had ordered no target');
  },
);

inEachOrder(
  'a target that no guest lives with is cut, and that is said; more than a guest has is all of it',
  async (t) => {
    const { fleet, events, connect } = wire(t, { vm: [{ match: NAME, target: '64K' }] });
    await connect('balloon');
    t.match(fleet.control.find(NAME), { balloon: { targetBytes: 0.75 * RAM_BYTES } });
    const said = events.filter(({ event }) => event === 'target-clamped');
    t.match(said, [{ message: /^64 KiB was ordered, and the guest needs 16 MiB of its 64 MiB/ }]);
    const says =
      'the guest keeps 64 KiB, but the guest needs 16 MiB of its 64 MiB: the balloon target is 48 MiB';
    t.match(fleet.control.find(NAME), { orders: [{ order: 'target', says }] });
    fleet.configure({ vm: [{ match: NAME, target: '2G' }] }, []);
    t.match(fleet.control.find(NAME), { balloon: { targetBytes: 0 } });
    t.equal(events.filter(({ event }) => event === 'target-clamped').length, 1);
  },
);

inEachOrder('each device that comes gets the orders, and an event names it', async (t) => {
  const { fleet, events, connect, gone } = wire(t);
  await connect('balloon');
  await fleet.control.setInhibited(NAME, 'backup');
  await connect('cache-balloon');
  const said = (name: string): string[] =>
    events.filter(({ event }) => event === name).map(({ message }) => message);
  t.match(said('orders-applied'), [/ hold for its page cache balloon: inhibit$/]);
  await gone();
  t.same(said('vm-disconnected').sort(), [
    'the VMM closed the connection of its balloon',
    'the VMM closed the connection of its page cache balloon',
  ]);
});
