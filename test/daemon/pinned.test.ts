// Rule 5: what a device pins is not discarded until it is pinned no more.
import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { VmFleet } from '../../src/daemon/fleet.js';
import { PinWatch } from '../../src/daemon/pin-watch.js';
import { decodeVmRecord } from '../../src/vm/record.js';
import { EventLog } from '../../src/ops/event-log.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { closeFd } from '../../src/os/fd.js';
import { socketPair } from '../../src/os/socket.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { BALLOON_F } from '../support/balloon-driver.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { HostTree } from '../support/host-tree.js';
import { PINNING_FILE, PinningVmm } from '../support/pinning-vmm.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { bits } from '../support/wire.js';

const FIRST = 4096;
/** A driver that need not tell owes no discards. */
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST) });
const REASON = `the VMM has ${PINNING_FILE} open, which pins guest memory`;

whereTold('nothing is discarded while pinned, and what is owed is when that ends', async (t) => {
  const vmm = await PinningVmm.start(t);
  if (vmm === null) return;
  const { served, frontend, driver } = await ServedVm.running({ pid: vmm.pid, paths: vmm.tree.paths });
  const { vm } = served;
  await driver.inflate([FIRST - 1]);
  await served.discarded();
  const pages = pfns(FIRST, 300);
  for (const pfn of pages) frontend.ram.fillPage(pfn, 1);
  await vmm.pin();
  vm.setTarget({ balloonBytes: 301 * PAGE_BYTES });
  t.equal(served.view.inhibited, REASON, 'looked at before a target rises');
  t.match(served.view.verdict, /vfio.*pins.*detached/);
  await driver.inflate(pages);
  await driver.report([{ gpa: (FIRST + 2048) * PAGE_BYTES, len: PAGE_BYTES }]);
  await sleep(60);
  t.ok(
    pages.every((pfn) => frontend.ram.pageHolds(pfn, 1)),
    'acked, not discarded',
  );
  t.equal(served.view.balloon.pendingBytes, 300 * PAGE_BYTES);
  vm.rises();
  t.equal(served.saw('inhibited').length, 1, 'said once');
  await vmm.unpin();
  vm.rises();
  t.equal(served.view.inhibited, null);
  t.equal(served.view.verdict, null);
  await served.discarded();
  t.ok(pages.every((pfn) => frontend.ram.pageIsZero(pfn)));
  t.match(served.saw('inhibited'), [{ fields: { reason: REASON } }]);
  t.equal(served.saw('allowed').length, 1);
  t.same(served.saw('pin-unknown'), []);
  await served.close();
});

inEachOrder('what was pinned before the VM had memory is not discarded once', async (t) => {
  const vmm = await PinningVmm.start(t);
  if (vmm === null) return;
  await vmm.pin();
  const { served } = await ServedVm.running({ pid: vmm.pid, paths: vmm.tree.paths });
  t.equal(served.view.inhibited, REASON);
  t.equal(served.saw('inhibited').length, 1);
  await served.close();
});

inEachOrder('an operator and a device are two reasons, and each is enough', async (t) => {
  const vmm = await PinningVmm.start(t);
  if (vmm === null) return;
  const { served, frontend, driver } = await ServedVm.running({ pid: vmm.pid, paths: vmm.tree.paths });
  const { vm, device } = served;
  const inhibits = (): unknown => decodeVmRecord(device.record()).inhibited;
  await vm.setInhibited('maintenance');
  await vmm.pin();
  vm.rises();
  t.equal(served.view.inhibited, 'maintenance');
  await driver.inflate([FIRST]);
  frontend.ram.fillPage(FIRST, 1);
  await vm.setInhibited(null);
  t.equal(served.view.inhibited, REASON, 'allowed, and still pinned');
  t.equal(inhibits(), null, 'what is written down is the operator');
  await vm.setInhibited('maintenance');
  t.equal(inhibits(), 'maintenance');
  await vmm.unpin();
  vm.rises();
  t.equal(served.view.inhibited, 'maintenance', 'pinned no more, and still not allowed');
  await sleep(60);
  t.ok(frontend.ram.pageHolds(FIRST, 1));
  t.equal(served.saw('allowed').length, 0);
  await vm.setInhibited(null);
  t.equal(served.view.inhibited, null);
  await served.discarded();
  t.equal(served.saw('allowed').length, 1);
  await served.close();
});

void t.test('VMs are looked at every now and then', async (t) => {
  const vmm = await PinningVmm.start(t);
  if (vmm === null) return;
  const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const events = new EventLog(log);
  const fleet = new VmFleet({}, events, NO_KEEPER, { pinCheckMs: 5, paths: vmm.tree.paths });
  const becomes = async (reason: string | null): Promise<void> => {
    for (let turn = 0; fleet.control.list()[0]?.inhibited !== reason; turn++) {
      if (turn > 2000) throw new Error(`never: ${String(reason)}`);
      await sleep(1);
    }
  };
  // This process is the peer.
  const fd = openSync(vmm.path, 'r');
  const [ours, theirs] = socketPair();
  fleet.adopt(ours, null);
  await becomes(REASON);
  closeSync(fd);
  await becomes(null);
  const again = openSync(vmm.path, 'r');
  await becomes(REASON);
  closeSync(again);
  await becomes(null);
  const many = Array.from({ length: 3000 }, () => openSync('/dev/null', 'r'));
  const last = openSync(vmm.path, 'r');
  await becomes(REASON);
  for (const one of [...many, last]) closeSync(one);
  await becomes(null);
  fleet.close();
  closeFd(theirs);
});

inEachOrder('a VMM whose files may not be looked at is served, and that is said once', async (t) => {
  const { served } = await ServedVm.running({ paths: new HostTree(t).paths });
  served.vm.rises();
  served.vm.rises();
  t.equal(served.view.inhibited, null);
  t.match(served.saw('pin-unknown'), [{ fields: { code: 'ENOENT' } }]);
  await served.close();
});

for (const [count, look] of [
  [3, 'glance'],
  [3, 'whole'],
  [40, 'glance'],
] as const) {
  void t.test(`each of ${count} VMs gets its look in every round: ${look}`, async (t) => {
    const looks = new Map<number, number>();
    const vms = new Map(
      Array.from({ length: count }, (_, n) => [
        String(n),
        {
          recheckPinned: () => {
            looks.set(n, (looks.get(n) ?? 0) + 1);
            return look;
          },
        },
      ]),
    );
    new PinWatch(
      () => [...vms.values()],
      () => true,
      3,
    ).wake();
    for (let turn = 0; (looks.get(0) ?? 0) < 5; turn++) {
      if (turn > 2000) throw new Error('never looked at');
      await sleep(1);
    }
    for (let n = 0; n < count; n++) t.ok(Math.abs((looks.get(n) ?? 0) - 5) <= 1, String(n));
    vms.clear();
  });
}

/** How many of 40 VMs are looked at in one go, three times. */
async function goes(lookMs: number, look: 'glance' | 'whole'): Promise<number[]> {
  const rounds: number[] = [];
  let looks = 0;
  const vm = {
    recheckPinned: () => {
      // Two timers may come in one turn of the event loop, and no microtask in the midst of one.
      if (looks === 0) queueMicrotask(() => rounds.push(looks) && (looks = 0));
      looks++;
      const begun = performance.now();
      while (performance.now() - begun < lookMs);
      return look;
    },
  };
  const vms = Array.from({ length: 40 }, () => vm);
  new PinWatch(
    () => [...vms],
    () => true,
    3,
  ).wake();
  while (rounds.length < 3) await sleep(1);
  vms.length = 0;
  return rounds.slice(0, 3);
}

void t.test('a host at rest, on which each look takes long, is not woken for each VM', async (t) => {
  t.same(await goes(1.5, 'glance'), [32, 8, 32]);
});

void t.test(
  'looks through all open files go on for a millisecond, and end behind one that takes longer',
  async (t) => {
    t.ok(Math.max(...(await goes(0, 'whole'))) > 1);
    t.same(await goes(1.5, 'whole'), [1, 1, 1]);
  },
);
