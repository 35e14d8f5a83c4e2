// A dry run says what an order would do, in the words and the bytes of the order itself, and does nothing.
import type { TargetRequest } from '../../protocol/control/schema.js';
import { vmTried, vmView } from '../../src/vm/view.js';
import { inEachOrder } from '../support/each-order.js';
import { GuestRam } from '../support/guest-ram.js';
import { ServedVm } from '../support/served-vm.js';

const MIB = 2 ** 20;

inEachOrder('a target that is tried is the one that follows from the order', async (t) => {
  const ram = new GuestRam([{ gpa: 0, lenBytes: 512 * MIB }]);
  const { served, driver } = await ServedVm.running({ name: 'web', frontend: { ram } });
  t.teardown(() => served.close());
  const { vm } = served;
  const tried = (target: TargetRequest) => vmTried(vmView(vm, null), vm, target);
  const forgotten = (view: ReturnType<typeof tried>) => ({
    targetBytes: view.balloon.targetBytes,
    orders: view.orders.map(({ order, says }) => [order, says]),
  });
  for (const target of [
    { memoryBytes: 256 * MIB },
    { balloonBytes: 100 * MIB },
    { balloonBytes: 505 * MIB, force: true },
    { balloonBytes: 0 },
  ]) {
    const before = vmView(vm, null);
    const would = forgotten(tried(target));
    t.same(vmView(vm, null).orders, before.orders, 'nothing is ordered');
    t.equal(vm.figures.targetBytes, before.balloon.targetBytes, 'and nothing set');
    vm.setTarget(target);
    t.same(would, forgotten(vmView(vm, null)), JSON.stringify(target));
  }
  t.throws(() => tried({ balloonBytes: 505 * MIB }), { message: /in which no guest is known to live/ });
  t.throws(() => tried({ balloonBytes: 2 ** 40 }), { message: /is too much/ });
  t.throws(() => tried({ cacheLimitBytes: MIB }), { message: /page cache balloon/ });
  t.equal(vm.figures.targetBytes, 0);
  await driver.idle();
});
