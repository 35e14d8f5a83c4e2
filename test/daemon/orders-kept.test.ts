// An order is answered when it is on disk: a host that loses its power the moment after has it. It can be listed and taken
// back whether the VM is connected or not.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FleetControl } from '../../src/daemon/fleet-control.js';
import { VmFleet } from '../../src/daemon/fleet.js';
import { OrderFiles } from '../../src/daemon/order-files.js';
import { EventLog } from '../../src/ops/event-log.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { socketPair } from '../../src/os/socket.js';
import { eventually, PATIENCE_MS } from '../support/deadline.js';
import { inEachOrder } from '../support/each-order.js';
import { temporaryFolder } from '../support/fleet.js';
import { Frontend } from '../support/frontend.js';
import { HostTree } from '../support/host-tree.js';

const NAME = 'web';
const CGROUP = '/vms/web';

const OF_ALL = ['a pause of the whole policy', 'a mode of the policy'];

/** Each order, and the words by which the file has it. A new order is one more line. */
const ORDERS: Readonly<Record<string, [give: (control: FleetControl) => Promise<unknown>, written: RegExp]>> =
  {
    target: [
      (control) => control.setTarget(NAME, { balloonBytes: 4096 }),
      /"target":\{"of":"balloon","bytes":4096/,
    ],
    limits: [(control) => control.setLimits(NAME, { high: 'follow' }), /"high":\{"word":"follow"/],
    inhibit: [(control) => control.setInhibited(NAME, 'backup'), /"reason":"backup"/],
    'a pause of the policy for the VM': [
      (control) => control.changePolicy({ paused: true, vm: NAME }),
      /"paused":\{"since"/,
    ],
    'a pause of the policy for a VM with a target': [
      async (control) => {
        await control.setTarget(NAME, { balloonBytes: 4096 });
        await control.changePolicy({ paused: true, vm: NAME });
      },
      /"paused":\{"since"/,
    ],
    'a pause of the whole policy': [
      (control) => control.changePolicy({ paused: true }),
      /"paused":\{"since"/,
    ],
    'a mode of the policy': [
      (control) => control.changePolicy({ mode: 'auto' }),
      /"mode":\{"word":"auto","since"/,
    ],
  };

for (const [name, [give, written]] of Object.entries(ORDERS)) {
  inEachOrder(`${name}: on disk when it is answered`, async (t) => {
    const folder = temporaryFolder(t);
    const tree = new HostTree(t);
    tree.process(process.pid, CGROUP);
    tree.memory(CGROUP, { current: 2 ** 20 });
    tree.write('proc/meminfo', 'MemTotal: 1048576 kB\nMemAvailable: 1048576 kB\n');
    const nothing = (): void => undefined;
    const log = new EventLog({ debug: nothing, info: nothing, warn: nothing, error: nothing });
    const orders = new OrderFiles(null, folder, { patienceMs: PATIENCE_MS });
    const fleet = new VmFleet({}, log, NO_KEEPER, { paths: tree.paths, orders });
    const [ours, theirs] = socketPair();
    fleet.adopt(ours, { path: '/balloon', name: NAME });
    const frontend = new Frontend({ socket: theirs });
    await frontend.connect();
    await orders.kept();
    t.notMatch(readFileSync(join(folder, 'orders.json'), 'utf8'), written);
    await give(fleet.control);
    t.match(readFileSync(join(folder, 'orders.json'), 'utf8'), written);
    const { control } = fleet;
    const before = OF_ALL.includes(name) ? [] : [{ vm: NAME, connected: true, orders: [{ by: 'operator' }] }];
    t.match(control.orders(), before, 'it is listed');
    frontend.close();
    await eventually(
      () => fleet.size === 0,
      () => 'the VM is gone',
    );
    if (!OF_ALL.includes(name)) {
      const undo = `balloonctl orders ${NAME} --take-back`;
      const held = [{ vm: NAME, connected: false, orders: [{ by: 'operator', undo }] }];
      t.match(control.orders(), held, 'it is listed of a VM that is not connected');
      t.match(await control.takeBackOrders(NAME), { orders: held[0]?.orders });
      t.notMatch(readFileSync(join(folder, 'orders.json'), 'utf8'), written, 'and taken back');
      t.same(control.orders(), []);
    }
    fleet.close();
    await orders.kept();
    const next = new OrderFiles(null, folder).book;
    t.equal(next.mode?.word ?? null, name === 'a mode of the policy' ? 'auto' : null, 'over restarts');
  });
}

inEachOrder('all orders for a VM that is connected are taken back at once', async (t) => {
  const tree = new HostTree(t);
  tree.process(process.pid, CGROUP);
  tree.memory(CGROUP, { current: 2 ** 20 });
  tree.write('proc/meminfo', 'MemTotal: 1048576 kB\nMemAvailable: 1048576 kB\n');
  const said: string[] = [];
  const note = ({ event }: { event: string }): void => void said.push(event);
  const log = new EventLog({ debug: note, info: note, warn: note, error: note });
  const fleet = new VmFleet({}, log, NO_KEEPER, { paths: tree.paths });
  const [ours, theirs] = socketPair();
  fleet.adopt(ours, { path: '/balloon', name: NAME });
  const frontend = new Frontend({ socket: theirs });
  await frontend.connect();
  const { control } = fleet;
  for (const [give] of Object.values(ORDERS)) await give(control);
  const taken = await control.takeBackOrders(NAME);
  t.same(
    taken.orders.map(({ order }) => order),
    ['inhibit', 'target', 'limit-high', 'policy'],
  );
  t.match(control.find(NAME), { inhibited: null, limits: { high: null }, orders: [{ says: /all VMs/ }] });
  t.equal(control.find(NAME)?.orders.length, 1, 'the pause for all VMs is none for this VM');
  t.ok(said.includes('orders-taken-back'));
  frontend.close();
  await eventually(
    () => fleet.size === 0,
    () => 'the VM is gone',
  );
  t.same(control.orders(), []);
  fleet.close();
});
