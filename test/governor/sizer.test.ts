// VMs that are sized by the law of src/policy/working-set.ts: their guests are modelled, the engine is real, and so is one device.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { GovernedVm, SizedDevice, VmFigures } from '../../src/governor/governed-vm.js';
import { PolicyEngine } from '../../src/governor/tick.js';
import { monotonicNow } from '../../src/os/clock.js';
import { PolicySettings, type PolicyFile } from '../../src/policy/settings.js';
import { eventually } from '../support/deadline.js';
import { GuestRam } from '../support/guest-ram.js';
import { HostTree } from '../support/host-tree.js';
import { ServedVm } from '../support/served-vm.js';
import { ANY_VMM } from '../support/vmm-orders.js';

const MIB = 2 ** 20;
const RAM_BYTES = 256 * MIB;
const FOLLOWS: PolicyFile = {
  policy: { mode: 'auto', band: [{ name: 'all', min: '20%' }] },
  vm: [{ match: 'follows*', size: 'working-set' }],
};

/** A guest that says how much of its memory is free, and follows at once. */
class Guest implements GovernedVm, SizedDevice {
  readonly ramBytes = RAM_BYTES;
  readonly sharedBytes = RAM_BYTES;
  readonly allocatedBytes = RAM_BYTES;
  readonly limitable = false;
  readonly cgroup = { usage: () => null, watch: () => null, unwatch: () => undefined };
  manual = false;
  readonly leftAlone = false;
  usesBytes = 80 * MIB;
  targetBytes = 0;
  actualBytes = 0;
  readonly features = ['VIRTIO_BALLOON_F_DEFLATE_ON_OOM'];
  onActual: (() => void) | null = null;
  asked = 0;
  readonly moves: string[] = [];
  #stats: VmFigures['stats'] = null;

  constructor(
    readonly name: string,
    readonly change: Partial<VmFigures> = {},
    readonly pid = 2 ** 22 + 1,
  ) {}

  get figures(): VmFigures {
    const { targetBytes, actualBytes } = this;
    const common = {
      state: 'running',
      inhibited: null,
      cache: null,
      askable: true,
      pool: null,
      actualUnknown: false,
      sharesMemory: true,
      deflatesOnOom: true,
      slowness: 0,
    } as const;
    return { ...common, targetBytes, actualBytes, stats: this.#stats, ...this.change };
  }

  refreshStats(): Promise<boolean> {
    this.asked++;
    const free = Math.max(0, RAM_BYTES - this.actualBytes - this.usesBytes);
    const values = ['MEMFREE', 'AVAIL'].map((tag) => [`VIRTIO_BALLOON_S_${tag}`, free] as const);
    this.#stats = { ageSeconds: 0, receivedAt: monotonicNow(), values: new Map(values) };
    return Promise.resolve(true);
  }

  setSize(bytes: number, why: string): void {
    this.moves.push(why);
    this.setPolicyTarget(bytes);
  }

  setPolicyTarget(bytes: number): void {
    this.targetBytes = bytes;
    this.actualBytes = bytes;
  }

  setCacheLimit(): void {
    // The plan's part.
  }

  playing(): SizedDevice {
    return this;
  }

  force(): Promise<void> {
    return Promise.resolve();
  }

  /** Has about as much memory as it uses. */
  get fits(): boolean {
    const free = RAM_BYTES - this.actualBytes - this.usesBytes;
    return free >= 16 * MIB && free < 40 * MIB;
  }
}

function govern(
  t: Test,
  vms: readonly GovernedVm[],
  file = FOLLOWS,
  availableMib = 700,
  now = (): number => performance.now() / 1000,
  tree = new HostTree(t),
): PolicyEngine {
  tree.write('proc/meminfo', `MemTotal: ${2 ** 20} kB\nMemAvailable: ${availableMib * 1024} kB\n`);
  const engine = new PolicyEngine(
    new PolicySettings(file),
    () => vms,
    () => undefined,
    { paths: tree.paths, now },
  );
  t.teardown(() => engine.close());
  engine.tick();
  return engine;
}

void t.test('a balloon follows the working set between ticks, down and up; others are left', async (t) => {
  const [guest, other] = [new Guest('follows'), new Guest('other')];
  const engine = govern(t, [guest, other]);
  await eventually(
    () => guest.fits,
    () => `${guest.actualBytes} of ${guest.usesBytes} follow`,
  );
  t.match(
    engine.view().vms[0]?.now,
    /^at its working set: \d+(\.\d+)? MiB; its guest does not tell of reclaim/,
  );
  guest.usesBytes = 180 * MIB;
  await eventually(
    () => guest.actualBytes <= RAM_BYTES - 180 * MIB,
    () => 'it gets what it uses',
  );
  t.ok(guest.moves.includes('its guest has little memory available'));
  t.same([other.asked, other.targetBytes], [0, 0], 'without the setting, nothing is asked of a guest');
  t.match(engine.view().vms[1]?.now, /^the policy asks this VM for nothing more/);
  await eventually(
    () => guest.fits && guest.actualBytes < 100 * MIB,
    () => 'it rests',
  );
  await guest.refreshStats();
  const { targetBytes } = guest;
  for (let tick = 0; tick < 20; tick++) engine.tick();
  t.equal(
    guest.targetBytes,
    targetBytes,
    'the host has memory left over, and the plan gives none of it back',
  );
});

void t.test('pages that a guest takes out of its balloon are given at once', async (t) => {
  const guest = new Guest('follows');
  govern(t, [guest]);
  await eventually(
    () => guest.fits,
    () => 'it follows',
  );
  await eventually(
    () => {
      guest.actualBytes = guest.targetBytes - 8 * MIB;
      guest.onActual?.();
      return guest.targetBytes === guest.actualBytes && guest.moves.at(-1)?.includes('by itself') === true;
    },
    () => `given at once: ${guest.moves.join('; ')}`,
  );
});

void t.test(
  'a guest at rest that takes pages out of its balloon is asked for statistics again at once',
  async (t) => {
    const guest = new Guest('follows');
    let skipped = 0;
    govern(t, [guest], FOLLOWS, 700, () => performance.now() / 1000 + skipped);
    await eventually(
      () => guest.fits && guest.asked > guest.moves.length + 2,
      () => 'it follows',
    );
    // It has rested for long, so that it is asked twice a minute.
    skipped = 1000;
    const resting = guest.asked;
    await eventually(
      () => guest.asked > resting,
      () => 'it is asked',
    );
    await new Promise((resolve) => setImmediate(resolve));
    const { asked } = guest;
    guest.actualBytes = guest.targetBytes - 8 * MIB;
    guest.onActual?.();
    t.equal(guest.asked, asked + 1);
  },
);

void t.test(
  'a guest at rest whose VMM begins to read is asked for statistics before others are',
  async (t) => {
    const [reader, other] = [new Guest('follows-reader', {}, 7), new Guest('follows-other', {}, 8)];
    const tree = new HostTree(t);
    const read = (mib: number): void => tree.write('proc/7/io', `rchar: ${mib * MIB}\nread_bytes: 0\n`);
    read(100);
    tree.write('proc/8/io', 'rchar: 100\nread_bytes: 0\n');
    let skipped = 0;
    govern(t, [reader, other], FOLLOWS, 700, () => performance.now() / 1000 + skipped, tree);
    await eventually(
      () => [reader, other].every((guest) => guest.fits && guest.asked > guest.moves.length + 2),
      () => 'they follow',
    );
    // They have rested for long, so that they are asked twice a minute.
    skipped = 1000;
    const before = [reader.asked, other.asked] as const;
    await eventually(
      () => reader.asked > before[0] && other.asked > before[1],
      () => 'they are asked',
    );
    const resting = [reader.asked, other.asked] as const;
    read(103);
    await sleep(4500);
    t.same([reader.asked, other.asked], resting, 'a little is no news');
    read(105);
    await eventually(
      () => reader.asked > resting[0],
      () => 'it is asked',
    );
    t.equal(other.asked, resting[1], 'and the other is not');
    await new Promise((resolve) => setImmediate(resolve));
    read(111);
    await sleep(4500);
    t.equal(reader.asked, resting[0] + 1, 'where asking changed nothing, the VMM has to read more than that');
    read(114);
    await eventually(
      () => reader.asked > resting[0] + 1,
      () => 'it is asked again',
    );
    t.equal(other.asked, resting[1]);
  },
);

void t.test(
  'it stops where the policy is paused, the VM is in hand, or the setting is taken back',
  async (t) => {
    const guest = new Guest('follows');
    const engine = govern(t, [guest]);
    t.type(guest.onActual, 'function');
    engine.change({ paused: true });
    engine.tick();
    t.equal(guest.onActual, null, 'paused');
    engine.change({ paused: false });
    engine.tick();
    t.type(guest.onActual, 'function');
    guest.manual = true;
    engine.tick();
    t.equal(guest.onActual, null, 'in hand');
    guest.manual = false;
    engine.configure(new PolicySettings({ ...FOLLOWS, vm: [] }));
    engine.tick();
    t.equal(guest.onActual, null, 'taken back');
    await eventually(
      () => guest.asked > 0,
      () => 'it was asked meanwhile',
    );
  },
);

void t.test(
  'only a traditional balloon whose memory reaches the host follows, and only where the policy acts',
  (t) => {
    const cache = { targetBytes: 0, actualBytes: 0 };
    const all = [
      new Guest('follows-cache', { cache }),
      new Guest('follows-pool', { pool: { pageBytes: 2 * MIB, discards: true } }),
      new Guest('follows-inhibited', { inhibited: 'a test' }),
      new Guest('follows-stopped', { state: 'stopped' }),
    ];
    for (const guest of all) {
      govern(t, [guest]);
      t.equal(guest.onActual, null, guest.name);
    }
    const observed = new Guest('follows');
    govern(t, [observed], { ...FOLLOWS, policy: { ...FOLLOWS.policy, mode: 'observe' } });
    t.equal(observed.onActual, null);
    t.end();
  },
);

void t.test('a guest gets no memory that the host has not got beyond its reserve', async (t) => {
  const guest = new Guest('follows');
  guest.setPolicyTarget(100 * MIB);
  guest.usesBytes = 156 * MIB;
  govern(t, [guest], { ...FOLLOWS, policy: { ...FOLLOWS.policy, reserve: '50%' } }, 513);
  await eventually(
    () => guest.asked >= 3,
    () => 'it is asked',
  );
  t.same(guest.moves, []);
});

void t.test('the target of a real device follows, and its moves are told to those who debug', async (t) => {
  const stats = (): (readonly [number, bigint])[] => {
    const free = RAM_BYTES - (driver?.balloonPfns.size ?? 0) * 4096 - 100 * MIB;
    return [
      [4, BigInt(Math.max(0, free))],
      [6, BigInt(Math.max(0, free))],
    ];
  };
  let driver: Awaited<ReturnType<typeof ServedVm.running>>['driver'] | null = null;
  const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  const running = await ServedVm.running({
    name: 'follows',
    frontend: { order: ANY_VMM, ram },
    driver: { stats },
  });
  ({ driver } = running);
  driver.followTarget();
  const { served } = running;
  t.teardown(() => served.close());
  await served.device.refreshStats(2000);
  const engine = govern(t, [served.vm]);
  await eventually(
    () => served.view.balloon.actualBytes > 110 * MIB,
    () => JSON.stringify(served.view.balloon),
  );
  // No move is under way when the device goes.
  engine.close();
  await driver.stopFollowing();
  await driver.idle();
  t.ok(served.saw('size-moved').length >= 2);
  t.match(
    served.saw('size-moved')[0]?.message,
    /^balloon target 0 B -> .*: this memory was free in its guest$/,
  );
  t.same(served.saw('target-changed'), []);
  t.same(served.saw('target-reached'), []);
});
