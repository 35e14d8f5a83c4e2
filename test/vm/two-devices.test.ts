// Every order for a VM, with every set of devices, over everything that may happen to them: generated, on the wire. The
// VMMs are this process; the daemon is another, which a keeper starts again.
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { CACHE_CONFIG_BYTES, CacheDriver } from '../support/cache-driver.js';
import { eventually } from '../support/deadline.js';
import { Frontend } from '../support/frontend.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { HostTree } from '../support/host-tree.js';
import { pfns } from '../support/served-vm.js';
import { SmallDaemon } from '../support/small-daemon.js';
import { ANY_VMM } from '../support/vmm-orders.js';
import { readU32 } from '../support/wire.js';

type Kind = 'balloon' | 'cache-balloon';

const NAME = 'web';
const CGROUP = '/vms/web';
const LIMIT_BYTES = 512 * 2 ** 20;
const TARGET_PAGES = 256;
const GIVEN = 64;

const tree = new HostTree(t);
tree.process(process.pid, CGROUP);
tree.memory(CGROUP, { current: 2 ** 20 });
tree.write('proc/misc', '');
tree.write('proc/devices', '');
const daemon = await SmallDaemon.start(tree.folder);
const { control } = daemon;
t.teardown(() => daemon.stop());

/** All that were connected and may still be. */
const connected = new Set<Wired>();

/** A device of the VM, whose driver starts when it is asked to. */
class Wired {
  readonly frontend: Frontend;
  #driver: BalloonDriver | CacheDriver | null = null;
  #next = 0;

  private constructor(readonly kind: Kind) {
    const space = kind === 'balloon' ? {} : { queueCount: 2, configBytes: CACHE_CONFIG_BYTES };
    this.frontend = new Frontend({ socket: join(tree.folder, `${kind}.sock`), order: ANY_VMM, ...space });
  }

  static async connect(kind: Kind): Promise<Wired> {
    const device = new Wired(kind);
    connected.add(device);
    await device.frontend.connect();
    return device;
  }

  async boot(): Promise<void> {
    const { frontend, kind } = this;
    this.#driver =
      kind === 'balloon' ? await BalloonDriver.start(frontend) : await CacheDriver.start(frontend);
  }

  /** Gives up pages that it did not give up before. */
  async give(): Promise<void> {
    const first = 4096 + this.#next;
    this.#next += GIVEN;
    if (this.#driver instanceof BalloonDriver) await this.#driver.inflate(pfns(first, GIVEN));
    else await this.#driver?.add(pfns(first, GIVEN).map((pfn) => ({ pfn, order: 0 })));
  }

  /** The target, as the guest reads it. */
  async target(): Promise<number> {
    return readU32(await this.frontend.getConfig(), 0);
  }
}

const show = (): Promise<VmView> => control.show(NAME);
const high = (): string => tree.read(`cgroup${CGROUP}/memory.high`);
const viewOf = (vm: VmView, kind: Kind): VmView['cache'] => (kind === 'balloon' ? vm.balloon : vm.cache);

interface Order {
  readonly give: (kinds: readonly Kind[]) => Promise<unknown>;
  /** That it holds for these devices. */
  holds(t: Test, devices: readonly Wired[]): Promise<void>;
  takeBack(): Promise<unknown>;
}

const ORDERS: Readonly<Record<string, Order>> = {
  inhibit: {
    give: () => control.inhibit(NAME, 'backup'),
    holds: async (t, devices) => {
      const before = await show();
      t.equal(before.inhibited, 'backup');
      for (const device of devices) await device.give();
      for (const { kind } of devices) {
        const vm = await show();
        const [was, is] = [viewOf(before, kind), viewOf(vm, kind)];
        t.equal(is?.discardedBytesTotal, was?.discardedBytesTotal, `${kind}: nothing is discarded`);
        t.equal(
          is?.inflatedBytesTotal,
          (was?.inflatedBytesTotal ?? 0) + GIVEN * PAGE_BYTES,
          `${kind}: pages are taken`,
        );
      }
    },
    takeBack: () => control.allow(NAME),
  },
  limit: {
    give: () => control.setLimits(NAME, { high: LIMIT_BYTES }),
    holds: async (t) => {
      await eventually(
        () => high() === String(LIMIT_BYTES),
        () => `memory.high is ${high()}`,
      );
      t.match(await show(), { limits: { high: LIMIT_BYTES, problem: null } });
    },
    takeBack: () => control.setLimits(NAME, { high: 'restore' }),
  },
  target: {
    give: (kinds) =>
      Promise.all(
        kinds.map((kind) => {
          const bytes = TARGET_PAGES * PAGE_BYTES;
          return control.setTarget(
            NAME,
            kind === 'balloon' ? { balloonBytes: bytes } : { cacheLimitBytes: bytes },
          );
        }),
      ),
    holds: async (t, devices) => {
      for (const device of devices) t.equal(await device.target(), TARGET_PAGES, device.kind);
      t.match(await show(), { policy: { mode: 'manual' } });
    },
    takeBack: () => control.changePolicy({ paused: false, vm: NAME }),
  },
  'by hand': {
    give: () => control.changePolicy({ paused: true, vm: NAME }),
    holds: async (t) => {
      t.match(await show(), { policy: { mode: 'manual' } });
    },
    takeBack: () => control.changePolicy({ paused: false, vm: NAME }),
  },
};

const SETS: Readonly<Record<string, readonly Kind[]>> = {
  traditional: ['balloon'],
  'page cache': ['cache-balloon'],
  both: ['balloon', 'cache-balloon'],
};

/** Gives the order, lets something happen, and returns the devices that are there then. */
type Happening = (
  kinds: readonly Kind[],
  order: (kinds: readonly Kind[]) => Promise<unknown>,
) => Promise<Wired[]>;

async function gone(): Promise<void> {
  await eventually(
    async () => (await control.list()).length === 0,
    () => 'the VM is gone',
  );
}

async function booted(kinds: readonly Kind[]): Promise<Wired[]> {
  const devices: Wired[] = [];
  for (const kind of kinds) {
    const device = await Wired.connect(kind);
    await device.boot();
    devices.push(device);
  }
  return devices;
}

const HAPPENINGS: Readonly<Record<string, Happening>> = {
  // The one that speaks for the VM; a VM with one device gets it back.
  'drop one': async (kinds, order) => {
    const [first, ...others] = await booted(kinds);
    await order(kinds);
    first?.frontend.close();
    if (others.length === 0) {
      await gone();
      return booted(kinds);
    }
    await eventually(
      async () => (await show()).features.every((name) => !name.startsWith('VIRTIO_BALLOON_F_')),
      () => 'the device is gone',
    );
    return others;
  },
  // A device connects after the order, or the driver of the only one starts after it.
  'late one': async (kinds, order) => {
    const late = kinds[0] ?? 'balloon';
    const early = await booted(kinds.filter((kind) => kind !== late));
    if (early.length > 0) {
      await order(early.map(({ kind }) => kind));
      const [device] = await booted([late]);
      // What is ordered of one kind of device says nothing of the other.
      if (device !== undefined && order !== ORDERS['target']?.give) early.push(device);
      return early;
    }
    const device = await Wired.connect(late);
    await order(kinds);
    await device.boot();
    return [device];
  },
  'power cycle': async (kinds, order) => {
    const devices = await booted(kinds);
    await order(kinds);
    for (const { frontend } of devices) frontend.close();
    await gone();
    return booted(kinds);
  },
  'daemon killed': async (kinds, order) => {
    const devices = await booted(kinds);
    await order(kinds);
    await daemon.kill();
    return devices;
  },
};

void t.test('a pause of the whole policy outlives a kill, and holds for VMs that come later', async (t) => {
  t.match(await control.policy(), { paused: false, orders: [] });
  await control.changePolicy({ paused: true });
  const [pause] = (await control.policy()).orders;
  t.match(pause, { order: 'policy', by: 'operator', since: /^\d{4}-/, undo: 'balloonctl policy resume' });
  await daemon.kill();
  t.match(await control.policy(), { paused: true, orders: [pause] }, 'as it was ordered, also since when');
  const devices = await booted(['balloon']);
  t.match(await show(), { policy: { mode: 'paused' }, orders: [pause] });
  await daemon.kill();
  t.match(await show(), { policy: { mode: 'paused' }, orders: [pause] });
  await control.changePolicy({ paused: false });
  t.match(await show(), { policy: { mode: 'observe' }, orders: [] });
  await daemon.kill();
  t.match(await control.policy(), { paused: false, orders: [] }, 'what is taken back stays so');
  t.match(await show(), { policy: { mode: 'observe' }, orders: [] });
  for (const { frontend } of devices) frontend.close();
  connected.clear();
  await gone();
});

for (const [set, kinds] of Object.entries(SETS)) {
  for (const [what, happening] of Object.entries(HAPPENINGS)) {
    for (const [word, order] of Object.entries(ORDERS)) {
      void t.test(`${word}, ${what}, ${set}`, async (t) => {
        const devices = await happening(kinds, order.give);
        await order.holds(t, devices);
        const { orders } = await show();
        t.ok(orders.length > 0 && orders.every(({ by, since }) => by === 'operator' && since !== null));
        await order.takeBack();
        t.same((await show()).orders, []);
        t.equal(high(), 'max');
        t.match(await show(), { inhibited: null, policy: { mode: 'observe' } });
        for (const { frontend } of connected) frontend.close();
        connected.clear();
        await gone();
      });
    }
  }
}
