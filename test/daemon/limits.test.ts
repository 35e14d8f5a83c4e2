import { rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { VmCgroup } from '../../src/vm/cgroup.js';
import { VmLimits } from '../../src/vm/limits.js';
import { BALLOON_F } from '../support/balloon-driver.js';
import { eventually } from '../support/deadline.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { HostTree } from '../support/host-tree.js';
import { pfns, ServedVm, type SeenEvent } from '../support/served-vm.js';
import { GuestRam } from '../support/guest-ram.js';
import { bits } from '../support/wire.js';

const MIB = 2 ** 20;
const RAM_BYTES = 1024 * MIB;
/** No process has it, so that nothing else is learnt of the "VMM". */
const PID = 2 ** 22 + 1;
/** The rings are below it. */
const FIRST = (256 * MIB) / 4096;
const OWN_BYTES = 30 * MIB;

/** Of a driver that need not tell, limits do not follow the balloon. */
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST) });

/** A VM with a driver that runs, and the cgroup that it is in. */
async function setUp(t: Test, { high = 'max', max = 'max' } = {}) {
  const tree = new HostTree(t);
  tree.process(PID, '/vms/web');
  tree.memory('/vms/web', { current: 100 * MIB, high, max, stat: `anon ${OWN_BYTES}\nshmem 1000` });
  const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  const running = await ServedVm.running({ pid: PID, paths: tree.paths, frontend: { ram } });
  const limit = (name: 'high' | 'max'): number => {
    const text = tree.read(`cgroup/vms/web/memory.${name}`);
    return text === 'max' ? Infinity : Number(text);
  };
  return { ...running, tree, limit };
}

/** What the limits that follow were said to be, at each step. */
function assertSteps(t: Test, events: SeenEvent[]): void {
  for (const { fields } of events) {
    if (!('mayUseBytes' in fields)) continue;
    const least = Number(fields['mayUseBytes']) + Number(fields['ownBytes']);
    for (const name of ['highToBytes', 'maxToBytes']) {
      if (name in fields) t.ok(Number(fields[name]) > least, `${name} in ${JSON.stringify(fields)}`);
    }
  }
}

inEachOrder('fixed limits are taken as they are, and put back when the VM leaves', async (t) => {
  const { served, limit } = await setUp(t, { high: String(2048 * MIB) });
  await served.vm.limits.request({ high: 512 * MIB, max: 600 * MIB });
  t.same([limit('high'), limit('max')], [512 * MIB, 600 * MIB]);
  t.match(served.view, {
    cgroup: { path: '/vms/web', currentBytes: 100 * MIB, highBytes: 512 * MIB, maxBytes: 600 * MIB },
    limits: { high: 512 * MIB, max: 600 * MIB, mayUseBytes: RAM_BYTES, problem: null },
    verdict: /memory.max is 600 MiB and the guest may use 1 GiB/,
  });
  await t.rejects(served.vm.limits.request({ max: 99 * MIB }), /the kernel would kill it/);
  t.match(JSON.parse(served.device.record()), {
    limits: { path: '/vms/web', highBytes: { found: 2048 * MIB }, maxBytes: { found: null } },
  });
  await served.vm.limits.request({ high: 'restore', max: 'max' });
  t.same([limit('high'), limit('max')], [2048 * MIB, Infinity]);
  t.match(served.view.limits, { high: null, max: 'max' });
  await served.vm.limits.request({ high: 512 * MIB, max: 600 * MIB });
  await served.close();
  t.same([limit('high'), limit('max')], [2048 * MIB, Infinity]);
  t.match(served.saw('limit-set').at(-1)?.fields, { why: 'restored' });
});

whereTold('following: raised before the guest may use more, lowered after it gave up', async (t) => {
  const { served, driver, limit } = await setUp(t);
  await served.vm.limits.request({ high: 'follow', max: 'follow' });
  const all = limit('high');
  t.ok(all > RAM_BYTES + OWN_BYTES && limit('max') > all);
  served.vm.setTarget({ balloonBytes: 512 * MIB });
  await driver.inflate(pfns(FIRST, (512 * MIB) / 4096));
  await served.discarded();
  await served.until(() => limit('high') <= all - 500 * MIB, 'lowered');
  const low = limit('high');
  t.ok(low >= 512 * MIB + OWN_BYTES);
  let atAck = 0;
  // By itself, as with DEFLATE_ON_OOM: the target stands.
  await driver.deflate(pfns(FIRST, (256 * MIB) / 4096)).then(() => (atAck = limit('high')));
  t.ok(atAck >= 768 * MIB + OWN_BYTES, 'when it hears that it may use them, it may');
  served.vm.setTarget({ balloonBytes: 0 });
  t.equal(limit('high'), all, 'before it even hears of the target');
  const order = served.events.filter(({ event }) => /limit-set|target-changed/.test(event)).slice(-2);
  t.match(order, [{ event: 'limit-set', fields: { why: 'target' } }, { event: 'target-changed' }]);
  assertSteps(t, served.events);
  await driver.inflate(pfns(FIRST, 1000));
  await driver.reset();
  t.ok(limit('high') >= RAM_BYTES + OWN_BYTES, 'a device that stopped has nothing in its balloon');
  await served.close();
  t.same([limit('high'), limit('max')], [Infinity, Infinity]);
});

inEachOrder('a driver that need not tell may use all it has', async (t) => {
  const tree = new HostTree(t);
  tree.process(PID, '/vms/web');
  tree.memory('/vms/web');
  const { served, driver } = await ServedVm.running({
    pid: PID,
    paths: tree.paths,
    driver: { features: 0n },
  });
  await driver.inflate(pfns(FIRST, 256));
  const { ramBytes, limits } = served.view;
  t.equal(limits.mayUseBytes, ramBytes);
  await served.close();
});

whereTold('nothing is taken by force: limits stop above what is charged', async (t) => {
  const { served, driver, tree, limit } = await setUp(t);
  await served.vm.limits.request({ max: 'follow' });
  tree.memory('/vms/web', { current: 900 * MIB, max: String(1200 * MIB), stat: `anon ${OWN_BYTES}` });
  served.vm.setTarget({ balloonBytes: 512 * MIB });
  await driver.inflate(pfns(FIRST, (512 * MIB) / 4096));
  await served.discarded();
  served.vm.limits.check();
  t.ok(limit('max') >= 916 * MIB && limit('max') < 1000 * MIB, String(limit('max')));
  await served.close();
});

inEachOrder('a cgroup that goes is said once, and the VM goes on', async (t) => {
  const { served, driver, tree } = await setUp(t);
  await served.vm.limits.request({ high: 'follow' });
  rmSync(join(tree.paths.cgroup, 'vms'), { recursive: true });
  served.vm.limits.check();
  served.vm.limits.check();
  served.vm.setTarget({ balloonBytes: MIB });
  await driver.inflate(pfns(FIRST, 256));
  t.match(served.saw('limit-failed'), [{ message: /the cgroup \/vms\/web is gone/ }]);
  t.equal(served.saw('limit-failed').length, 1);
  await t.rejects(served.vm.limits.request({ high: MIB }), /no memory controller/);
  t.match(served.view, { cgroup: null, limits: { high: null, problem: /no memory controller/ } });
  await served.close();
});

inEachOrder('a VM without a cgroup of its own says why', async (t) => {
  const tree = new HostTree(t);
  tree.process(PID, '/vms/all');
  tree.memory('/vms/all');
  tree.process(8, '/vms/all');
  const strict = await ServedVm.running({ pid: PID, paths: tree.paths });
  await t.rejects(strict.served.vm.limits.request({ high: MIB }), /holds process 8 as well/);
  t.equal(strict.served.view.verdict, null, 'nobody asked for limits');
  await strict.served.close();
  const shared = await ServedVm.running({ pid: PID, paths: tree.paths, sharedCgroup: true });
  await shared.served.vm.limits.request({ high: MIB });
  t.equal(tree.read('cgroup/vms/all/memory.high'), String(MIB));
  await shared.served.close();
});

void t.test('what was found outlives the daemon that found it', async (t) => {
  const tree = new HostTree(t);
  tree.process(PID, '/vms/web');
  tree.memory('/vms/web', { high: String(700 * MIB), stat: 'anon 4096' });
  const guest = { ramBytes: RAM_BYTES, targetBytes: 0, discardedBytes: 0, tellsFirst: true };
  const use = () => ({ ...guest, sharesMemory: true });
  const records: string[] = [];
  const emit = (): undefined => undefined;
  const context = () => ({ cgroup: new VmCgroup({ pid: PID, paths: tree.paths, emit }), emit, use });
  const first = new VmLimits({ ...context(), save: () => records.push(JSON.stringify(first.record())) });
  await first.request({ high: 'follow', max: 2048 * MIB });
  t.match(JSON.parse(records[0] ?? ''), { highBytes: { found: 700 * MIB } }, 'before it was changed');
  // Killed here; the next one knows nothing else.
  tree.memory('/vms/web', { high: '4096', max: String(2048 * MIB), stat: 'anon 4096' });
  const second = new VmLimits({ ...context(), save: () => undefined });
  second.resume(first.record());
  t.ok(Number(tree.read('cgroup/vms/web/memory.high')) > RAM_BYTES, 'goes on following');
  second.close();
  const limits = (): string[] => ['high', 'max'].map((name) => tree.read(`cgroup/vms/web/memory.${name}`));
  const found = [String(700 * MIB), 'max'].join();
  await eventually(
    () => limits().join() === found,
    () => `${limits().join()} becomes ${found}`,
  );
  first.close();
});
