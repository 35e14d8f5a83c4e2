// Guests in three bands whose reactions are modelled; rings, memfds, VMs, limits and the engine are real.
import { rmSync, symlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { deviceOptions } from '../../src/daemon/settings.js';
import type { GovernedVm } from '../../src/governor/governed-vm.js';
import { PolicyEngine } from '../../src/governor/tick.js';
import { monotonicNow } from '../../src/os/clock.js';
import { PolicySettings, type PolicyFile } from '../../src/policy/settings.js';
import { OrderBook, readBook } from '../../src/vm/order-book.js';
import type { BalloonDriver } from '../support/balloon-driver.js';
import { CACHE_CONFIG, CACHE_CONFIG_BYTES, CacheDriver } from '../support/cache-driver.js';
import { eventually } from '../support/deadline.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { HostTree } from '../support/host-tree.js';
import { ServedVm, type SeenEvent } from '../support/served-vm.js';
import { ANY_VMM } from '../support/vmm-orders.js';

const MIB = 2 ** 20;
const RAM_BYTES = 256 * MIB;
const FIRST_PID = 2 ** 22 + 1;
/** What a guest's use grows by in a second. */
const GROWTH_BYTES = 5 * MIB;
const STAT = { MEMFREE: 4, AVAIL: 6, ALLOC_STALL: 11 } as const;
/** Beyond what the page cache balloon's driver needs for itself. */
const BALLOON_AREA_GPA = 2 * MIB;
/** What it holds is added and reclaimed in blocks. */
const BLOCK_ORDER = 8;
const BLOCK_BYTES = 2 ** BLOCK_ORDER * PAGE_BYTES;

class Guest {
  wantsBytes = 80 * MIB;
  usesBytes = 80 * MIB;
  touchedBytes = 80 * MIB;
  stalls = 0;
  driver: BalloonDriver | null = null;
  cache: CacheDriver | null = null;
  cachedBytes = 0;
  /** Says that it follows, and does not. */
  refuses = false;

  get usableBytes(): number {
    return RAM_BYTES - (this.driver?.balloonPfns.size ?? 0) * PAGE_BYTES;
  }

  get stalling(): boolean {
    return this.wantsBytes > this.usableBytes;
  }

  live(): void {
    const grown = Math.min(this.wantsBytes, this.usesBytes + GROWTH_BYTES);
    this.usesBytes = Math.min(grown, this.usableBytes);
    if (grown > this.usableBytes) this.stalls++;
    this.touchedBytes = Math.min(this.usableBytes, Math.max(this.touchedBytes, this.usesBytes));
  }

  /** Its page cache balloon holds what it has no use for: from the end of its memory, so that less is held first. */
  async size(): Promise<void> {
    if (this.cache === null) return;
    const limit = (await this.cache.read(CACHE_CONFIG.numPages)) * PAGE_BYTES;
    const holds = this.cachedBytes / BLOCK_BYTES;
    const spares = Math.floor(Math.min(limit, this.usableBytes - this.usesBytes) / BLOCK_BYTES);
    const block = (n: number) => ({
      pfn: (RAM_BYTES - (n + 1) * BLOCK_BYTES) / PAGE_BYTES,
      order: BLOCK_ORDER,
    });
    const between = Array.from({ length: Math.abs(spares - holds) }, (_, n) =>
      block(Math.min(spares, holds) + n),
    );
    if (spares > holds) await this.cache.add(between);
    if (spares < holds) await this.cache.reclaimed(between);
    this.cachedBytes = spares * BLOCK_BYTES;
    this.touchedBytes = Math.min(this.touchedBytes, this.usableBytes - this.cachedBytes);
  }

  stats(): readonly (readonly [number, bigint])[] {
    const free = BigInt(Math.max(0, Math.floor(this.usableBytes - this.usesBytes)));
    return [
      [STAT.MEMFREE, free],
      [STAT.AVAIL, free],
      [STAT.ALLOC_STALL, BigInt(this.stalls)],
    ];
  }
}

class Scene {
  readonly tree: HostTree;
  readonly guests = new Map<string, Guest>();
  readonly served = new Map<string, ServedVm>();
  readonly caches = new Map<string, ServedVm>();
  readonly rams = new Map<string, GuestRam>();
  readonly events: (SeenEvent & { vm: string; tick: number })[] = [];
  readonly engine: PolicyEngine;
  tick = 0;
  /** What is used on the host by nobody whom it governs. */
  othersBytes = 0;
  /** Guests send statistics. */
  statsCome = true;

  private constructor(
    t: Test,
    readonly totalBytes: number,
    policy: PolicyFile['policy'],
  ) {
    this.tree = new HostTree(t);
    this.#meminfo();
    this.engine = new PolicyEngine(
      new PolicySettings({
        policy: {
          mode: 'auto',
          'will-grace': 3,
          'force-grace': 2,
          hold: 5,
          ...policy,
          band: ['gold', 'silver', 'bronze'].map((name) => ({ name, match: [`${name}-*`], min: '20%' })),
        },
      }),
      () =>
        [...this.guests.keys()].flatMap((name) => {
          const [first] = this.devices(name).map(({ vm }) => vm);
          return first === undefined ? [] : first;
        }),
      (event, message, fields = {}, vm = '') =>
        this.events.push({ event, message, fields, vm, tick: this.tick }),
      { paths: this.tree.paths, now: () => this.tick },
    );
  }

  static async open(
    t: Test,
    totalBytes: number,
    names: readonly string[],
    policy: PolicyFile['policy'] = {},
    caches: Readonly<Record<string, 'beside' | 'alone'>> = {},
  ) {
    const scene = new Scene(t, totalBytes, policy);
    for (const [index, name] of names.entries()) {
      const guest = new Guest();
      const pid = FIRST_PID + index;
      scene.tree.process(pid, `/vms/${name}`);
      scene.tree.memory(`/vms/${name}`, { current: guest.touchedBytes });
      const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
      scene.guests.set(name, guest);
      scene.rams.set(name, ram);
      const { paths } = scene.tree;
      if (caches[name] !== undefined) {
        const space = { queueCount: 2, configBytes: CACHE_CONFIG_BYTES };
        const options = deviceOptions({}, { path: '/cache', device: 'cache-balloon' }, name);
        const shared = { ...options, statsIntervalSeconds: 0, pid, paths, name };
        const served = new ServedVm({ ...shared, frontend: { order: ANY_VMM, ram, ...space } });
        await served.frontend.connect();
        guest.cache = await CacheDriver.start(served.frontend);
        await served.until((view) => view.state === 'running', 'the device runs');
        scene.caches.set(name, served);
      }
      if (caches[name] === 'alone') continue;
      const driver = { stats: () => guest.stats(), areaGpa: BALLOON_AREA_GPA };
      const beside = scene.caches.get(name)?.vm;
      const both = beside === undefined ? {} : { beside };
      const running = await ServedVm.running({
        pid,
        paths,
        name,
        frontend: { order: ANY_VMM, ram },
        driver,
        ...both,
      });
      guest.driver = running.driver;
      running.driver.followTarget();
      scene.served.set(name, running.served);
    }
    t.teardown(async () => {
      scene.engine.close();
      for (const name of names) for (const served of scene.devices(name)) await served.close();
    });
    return scene;
  }

  get availableBytes(): number {
    const used = [...this.guests.values()].reduce((sum, { touchedBytes }) => sum + touchedBytes, 0);
    return this.totalBytes - this.othersBytes - used;
  }

  devices(name: string): ServedVm[] {
    return [this.served.get(name), this.caches.get(name)].filter((served) => served !== undefined);
  }

  guest(name: string): Guest {
    const guest = this.guests.get(name);
    if (guest === undefined) throw new Error(`no guest ${name}`);
    return guest;
  }

  limit(name: string, which: 'high' | 'max'): string {
    return this.tree.read(`cgroup/vms/${name}/memory.${which}`);
  }

  /** The host's figures change, and nobody looks. */
  othersUse(bytes: number): void {
    this.othersBytes = bytes;
    this.#meminfo();
  }

  /** One second: guests live, the engine looks, drivers follow. */
  async second(): Promise<void> {
    this.tick++;
    for (const [name, guest] of this.guests) {
      guest.live();
      await guest.size();
      this.tree.write(`cgroup/vms/${name}/memory.current`, `${Math.round(guest.touchedBytes)}\n`);
      if (this.statsCome) await this.served.get(name)?.device.refreshStats(2000);
    }
    this.#meminfo();
    this.engine.tick();
    await this.followed();
  }

  /** Resolves when drivers have done what they were asked. */
  async followed(): Promise<void> {
    for (const [name, served] of this.served) {
      const { driver, refuses } = this.guest(name);
      if (driver === null || refuses) continue;
      await served.until(({ balloon }) => balloon.actualBytes === balloon.targetBytes, `${name} follows`);
      await driver.idle();
    }
    for (const name of this.guests.keys()) for (const served of this.devices(name)) await served.settle();
  }

  /** Limits are written behind: resolves when those of this second are. */
  async limitsWritten(name: string): Promise<void> {
    const told = ({ event, vm, tick }: { event: string; vm: string; tick: number }): boolean =>
      vm === name && tick === this.tick && ['policy-forced', 'policy-released'].includes(event);
    const fields = this.events.findLast(told)?.fields;
    if (fields === undefined) return;
    const word = (bytes: unknown): string => (typeof bytes === 'number' ? String(bytes) : 'max');
    await eventually(
      () =>
        this.limit(name, 'high') === word(fields['highBytes']) &&
        this.limit(name, 'max') === word(fields['maxBytes']),
      () => `the limits of ${name} are written`,
      1,
    );
  }

  explained(name: string): ReturnType<PolicyEngine['view']>['vms'][number] | undefined {
    return this.engine.view().vms.find((vm) => vm.name === name);
  }

  said(event: string, vm: string): (SeenEvent & { tick: number })[] {
    return this.events.filter((seen) => seen.event === event && seen.vm === vm);
  }

  #meminfo(): void {
    const kib = (bytes: number): number => Math.max(0, Math.floor(bytes / 1024));
    const { totalBytes, availableBytes } = this;
    this.tree.write(
      'proc/meminfo',
      `MemTotal: ${kib(totalBytes)} kB\nMemAvailable: ${kib(availableBytes)} kB\n`,
    );
  }
}

void t.test('three bands and 60 % of what they want: gold is served, bronze yields first', async (t) => {
  const names = ['gold-1', 'silver-1', 'bronze-1'];
  const wants = 200 * MIB;
  // A tenth is kept in reserve.
  const scene = await Scene.open(t, (0.6 * 3 * wants) / 0.9, names);
  const { guests } = scene;
  for (const guest of guests.values()) guest.wantsBytes = wants;
  const gold = scene.guest('gold-1');
  let waits = 0;
  let longest = 0;
  let least = Infinity;
  for (let second = 0; second < 60; second++) {
    await scene.second();
    waits = gold.usesBytes < Math.min(wants, 80 * MIB + GROWTH_BYTES * scene.tick) ? waits + 1 : 0;
    longest = Math.max(longest, waits);
    least = Math.min(least, scene.availableBytes);
  }
  t.equal(gold.usesBytes, wants, 'gold has what it wants');
  t.ok(longest <= 5, `and waited ${longest} s at most`);
  t.ok(least > 0, 'the host always had something left');
  t.equal(scene.events.filter(({ fields }) => fields['killed'] !== undefined).length, 0);
  const firstTaken = names.map((name) => scene.said('policy-took', name)[0]?.tick ?? Infinity);
  t.ok(Math.min(...firstTaken) === firstTaken[2], `bronze yields first: ${firstTaken.join(', ')}`);
  const bytes = names.map((name) => scene.guest(name).usableBytes);
  t.ok((bytes[1] ?? 0) > (bytes[2] ?? 0), 'silver keeps more than bronze');
  t.ok((bytes[2] ?? 0) >= 0.2 * RAM_BYTES, 'bronze keeps its floor');
  const moves = scene.events.filter(({ event }) => event === 'policy-took' || event === 'policy-gave').length;
  const counted = [...scene.engine.measures().acted].filter(
    ({ action }) => action === 'took' || action === 'gave',
  );
  t.equal(
    counted.reduce((sum, { count }) => sum + count, 0),
    moves,
  );
  for (let second = 0; second < 120; second++) await scene.second();

  const moved =
    scene.events.filter(({ event }) => event === 'policy-took' || event === 'policy-gave').length - moves;
  t.ok(moved / (2 * names.length) <= 1, `${moved} targets changed in two minutes`);
  for (const { fields, event, vm } of scene.events) {
    if (event !== 'policy-took' && event !== 'policy-gave') continue;
    t.ok(Number(fields['bytes']) > 0);
    t.equal(event === 'policy-took' ? fields['donor'] : fields['receiver'], vm);
  }
  const explained = scene.engine.view().vms.find(({ name }) => name === 'bronze-1');
  t.match(explained?.said, /^(took|gave) .* bronze-1 \(bronze\): .*host available \d+ %/);
});

void t.test(
  'who refuses to inflate is held by memory.high, then memory.max, and released in reverse',
  async (t) => {
    const scene = await Scene.open(t, 380 * MIB, ['gold-1', 'bronze-1']);
    const bronze = scene.guest('bronze-1');
    bronze.refuses = true;
    await bronze.driver?.stopFollowing();
    bronze.wantsBytes = 200 * MIB;
    scene.guest('gold-1').wantsBytes = 200 * MIB;
    const seen: string[] = [];
    const note = (): void => {
      const now = `${scene.limit('bronze-1', 'high') === 'max' ? '-' : 'high'} ${scene.limit('bronze-1', 'max') === 'max' ? '-' : 'max'}`;
      if (seen.at(-1) !== now) seen.push(now);
    };
    for (let second = 0; second < 60 && seen.at(-1) !== 'high max'; second++) {
      await scene.second();
      await scene.limitsWritten('bronze-1');
      note();
    }
    t.same(seen, ['- -', 'high -', 'high max']);
    const asked = scene.said('policy-took', 'bronze-1')[0]?.tick ?? Infinity;
    const forced = scene.said('policy-forced', 'bronze-1');
    t.equal(forced.length, 4, 'three steps of memory.high, and memory.max');
    const gaps = forced.map(({ tick }, index) => tick - (forced[index - 1]?.tick ?? asked));
    t.ok((gaps[0] ?? 0) >= 3, 'not before its guest had time to yield');
    t.ok(
      gaps.slice(1).every((gap) => gap >= 2),
      `nor faster than it may: ${gaps.join(', ')}`,
    );
    const highs = forced.map(({ fields }) => Number(fields['highBytes']));
    t.same(
      highs,
      [...highs].sort((a, b) => b - a),
      'lower at each step',
    );
    t.ok(Number(forced.at(-1)?.fields['maxBytes']) >= bronze.touchedBytes, 'memory.max does not kill');
    bronze.refuses = false;
    bronze.driver?.followTarget();
    for (let second = 0; second < 30 && seen.at(-1) !== '- -'; second++) {
      await scene.second();
      await scene.limitsWritten('bronze-1');
      note();
    }
    t.equal(seen.at(-1), '- -');
    const released = scene.said('policy-released', 'bronze-1').map(({ fields }) => fields);
    t.match(released[0], { highBytes: Number, maxBytes: null }, 'memory.max first');
    t.match(released.at(-1), { highBytes: null, maxBytes: null }, 'memory.high last');
    t.equal(scene.engine.view().vms.find(({ name }) => name === 'bronze-1')?.force, 'none');
  },
);

/** A bronze guest that touched 200 MiB and uses 40, on a host of 400 MiB whose policy looks once an hour. */
async function besideIdleBronze(t: Test): Promise<{ scene: Scene; taken: () => number }> {
  const scene = await Scene.open(t, 400 * MIB, ['gold-1', 'bronze-1'], { interval: 3600 });
  const bronze = scene.guest('bronze-1');
  bronze.wantsBytes = bronze.usesBytes = bronze.touchedBytes = 200 * MIB;
  await scene.second();
  bronze.wantsBytes = bronze.usesBytes = 40 * MIB;
  return { scene, taken: () => scene.said('policy-took', 'bronze-1').length };
}

void t.test('a host that loses memory fast is looked at before its interval is over', async (t) => {
  const { scene, taken } = await besideIdleBronze(t);
  await scene.second();
  scene.engine.start();
  scene.tick++;
  scene.othersUse(20 * MIB);
  // As long as it looks whether the host loses memory, twice.
  await sleep(2500);
  t.equal(taken(), 0, 'the reserve is far away');
  scene.othersUse(100 * MIB);
  await eventually(
    () => taken() === 1,
    () => 'it looks, and takes',
  );
  await scene.followed();
});

void t.test('while it takes memory for others, it does not wait for its interval', async (t) => {
  const { scene, taken } = await besideIdleBronze(t);
  scene.engine.start();
  // The host is short from here on.
  scene.othersBytes = 120 * MIB;
  await scene.second();
  t.equal(taken(), 1);
  scene.tick++;
  await eventually(
    () => taken() === 2,
    () => 'it takes more',
  );
  await scene.followed();
});

void t.test('it only observes where nobody said more, and leaves alone what an operator set', async (t) => {
  const scene = await Scene.open(t, 170 * MIB, ['gold-1', 'bronze-1'], { mode: 'observe' });
  for (let second = 0; second < 5; second++) await scene.second();
  for (const served of scene.served.values()) t.equal(served.view.balloon.targetBytes, 0);
  t.equal(scene.said('policy-took', 'bronze-1').length, 0);
  t.equal(scene.said('policy-advice', 'bronze-1').length, 1, 'said once');
  t.match(scene.engine.view().vms[1], { mode: 'observe', said: /^would have taken/ });

  const acting = await Scene.open(t, 170 * MIB, ['gold-1', 'bronze-1']);
  acting.served.get('bronze-1')?.vm.setTarget({ balloonBytes: 8 * MIB });
  for (let second = 0; second < 5; second++) await acting.second();
  t.equal(acting.served.get('bronze-1')?.view.balloon.targetBytes, 8 * MIB);
  t.match(acting.engine.view().vms[1], { mode: 'manual', now: /policy resume bronze-1/ });
  acting.engine.change({ paused: false, vm: 'bronze-1' });
  for (let second = 0; second < 5; second++) await acting.second();
  t.ok((acting.served.get('bronze-1')?.view.balloon.targetBytes ?? 0) > 8 * MIB, 'governed again');
});

void t.test('an operator sets the mode, and can see before what auto would do', async (t) => {
  const scene = await Scene.open(t, 170 * MIB, ['gold-1', 'bronze-1'], { mode: 'observe' });
  await scene.second();
  const { engine } = scene;
  const target = (): number => scene.served.get('bronze-1')?.view.balloon.targetBytes ?? NaN;
  const advice = engine.advice();
  t.match(advice, [{ vm: 'bronze-1', action: 'target', fromBytes: 0, cause: 'host-short', says: /^took / }]);
  t.same(engine.advice(), advice, 'it remembers nothing of it');
  t.equal(target(), 0, 'and does nothing');
  t.match(engine.view(), { mode: 'observe', orders: [] });

  t.match(engine.changeMode('auto'), {
    mode: 'auto',
    orders: [{ order: 'policy-mode', by: 'operator', undo: 'balloonctl policy mode configured' }],
  });
  t.match(scene.said('policy-changed', ''), [{ fields: { mode: 'auto', before: 'observe' } }]);
  await scene.second();
  const taken = target();
  t.ok(taken > 0, 'it acts');
  engine.changeMode('auto');
  t.equal(scene.said('policy-changed', '').length, 1, 'the same once more is no news');
  engine.configure(new PolicySettings({ policy: { mode: 'off' } }));
  t.equal(engine.view().mode, 'auto', 'whatever the configuration says');

  engine.changeMode('observe');
  await scene.second();
  t.equal(target(), taken, 'targets stay');
  t.match(scene.explained('bronze-1'), { mode: 'observe', force: 'none' });
  t.match(engine.changeMode(null), { mode: 'off', orders: [] }, 'that of the configuration again');
});

void t.test('the next daemon begins in the mode that an operator set, and says so', (t) => {
  const tree = new HostTree(t);
  tree.write('proc/meminfo', 'MemTotal: 1048576 kB\nMemAvailable: 1048576 kB\n');
  const settings = new PolicySettings({ policy: { mode: 'off' } });
  let text = '';
  const book = new OrderBook(null, (written) => (text = written));
  const engine = (from: OrderBook, said: string[] = []): PolicyEngine =>
    new PolicyEngine(
      settings,
      () => [],
      (event, message) => said.push(`${event}: ${message}`),
      {
        paths: tree.paths,
        book: from,
      },
    );
  const first = engine(book);
  t.equal(first.acts, false);
  first.changeMode('auto');
  t.equal(first.acts, true);
  first.close();
  const read = readBook(text);
  if (!('document' in read)) throw new Error(read.unreadable);
  const said: string[] = [];
  const next = engine(new OrderBook(read.document), said);
  t.teardown(() => next.close());
  t.equal(next.acts, true);
  next.start();
  t.match(said, [
    /^orders-applied: the policy is in mode auto, .* balloonctl policy mode configured takes it back$/,
  ]);
  t.end();
});

void t.test('force ends when the policy acts no more', async (t) => {
  const scene = await Scene.open(t, 380 * MIB, ['gold-1', 'bronze-1']);
  const bronze = scene.guest('bronze-1');
  bronze.refuses = true;
  await bronze.driver?.stopFollowing();
  for (const guest of scene.guests.values()) guest.wantsBytes = 200 * MIB;
  const forced = (): boolean => scene.limit('bronze-1', 'high') !== 'max';
  for (let second = 0; second < 60 && !forced(); second++) {
    await scene.second();
    await scene.limitsWritten('bronze-1');
  }
  t.ok(forced());
  scene.engine.changeMode('off');
  await eventually(
    () => !forced(),
    () => 'its limit is as it was found',
  );
  t.equal(scene.engine.view().vms.find(({ name }) => name === 'bronze-1')?.force, 'none');
});

void t.test(
  'VMs may have a part of the host: what is theirs counts, whatever the host has left',
  async (t) => {
    const scene = await Scene.open(t, 1024 * MIB, ['gold-1', 'bronze-1'], { memory: '20M' });
    const standing = (name: string): string =>
      scene.engine.view().vms.find((vm) => vm.name === name)?.now ?? '';
    await scene.second();
    t.equal(scene.said('policy-took', 'bronze-1').length, 0);
    t.match(
      standing('bronze-1'),
      /^the policy asks this VM for nothing more, because the reserve is there: available to VMs 19.6 MiB, reserve 2 MiB$/,
    );
    const file = scene.rams.get('bronze-1')?.regions[0]?.file;
    writeSync(file?.fd ?? -1, Buffer.alloc(19 * MIB), 0, 19 * MIB, 0);
    await scene.second();
    t.match(scene.said('policy-took', 'bronze-1')[0], {
      message: /: available to VMs 4 % < reserve 10 %; \d+ % of its memory idle$/,
      fields: { donor: 'bronze-1', receiver: 'host' },
    });
    t.match(
      standing('bronze-1'),
      /^the policy asks this VM for nothing more, .*, reserve 2 MiB; 178 MiB of this VM stay taken$/,
    );
    t.match(scene.engine.view().host, { totalBytes: 20 * MIB });
  },
);

void t.test('who cannot be limited is not forced: it has withstood', async (t) => {
  const scene = await Scene.open(t, 380 * MIB, ['gold-1', 'bronze-1']);
  const bronze = scene.guest('bronze-1');
  bronze.refuses = true;
  await bronze.driver?.stopFollowing();
  bronze.wantsBytes = 200 * MIB;
  scene.guest('gold-1').wantsBytes = 200 * MIB;
  // A number that not even root may write.
  const high = join(scene.tree.paths.cgroup, 'vms/bronze-1/memory.high');
  rmSync(high);
  symlinkSync('/proc/sys/kernel/ngroups_max', high);
  for (let second = 0; second < 30; second++) await scene.second();
  t.same(
    scene.said('policy-forced', 'bronze-1').map(({ fields }) => fields['rung']),
    [1],
    'tried once',
  );
  t.match(
    scene.events.find(({ event }) => event === 'policy-degraded'),
    { message: /^bronze-1 cannot be held to less: the limits of .* cannot be written \(EACCES\)/ },
  );
  const [withstood] = scene.events.filter(({ fields }) => fields['cause'] === 'withstood');
  t.match(withstood, { vm: 'bronze-1' });
});

void t.test(
  'a guest with both balloons gives and takes by itself, and is asked for what it did not give',
  async (t) => {
    // Page cache balloons grow where less than 1350 MiB are available, and shrink from 1950 on.
    const scene = await Scene.open(t, 6000 * MIB, ['gold-1', 'bronze-1'], {}, { 'bronze-1': 'beside' });
    const bronze = scene.guest('bronze-1');
    const seconds = async (count: number): Promise<void> => {
      for (let second = 0; second < count; second++) await scene.second();
    };
    bronze.touchedBytes = RAM_BYTES;
    const floor = Math.round(0.2 * RAM_BYTES);
    const limit = Math.floor((RAM_BYTES - floor) / PAGE_BYTES) * PAGE_BYTES;
    await seconds(5);
    t.equal(bronze.touchedBytes, RAM_BYTES, 'it keeps its page cache on a host with room');
    t.match(scene.explained('bronze-1'), {
      said: null,
      now: /; its guest keeps its page cache until less than 1.3 GiB are available$/,
    });
    scene.othersBytes = 5300 * MIB;
    await seconds(2);
    scene.othersBytes = 4200 * MIB;
    await seconds(3);
    t.match(scene.said('policy-cache-limit', 'bronze-1'), [
      {
        message:
          'let the page cache balloon of bronze-1 (bronze) hold up to 205 MiB: host available 6 % < reserve 10 %; its guest may give all of its memory but its min',
        fields: { cause: 'sizes-itself', fromBytes: 0, toBytes: limit },
      },
    ]);
    t.equal(scene.said('policy-cache-limit', 'gold-1').length, 0);
    t.equal(bronze.cachedBytes, RAM_BYTES - 80 * MIB, 'it gave what it has no use for');
    t.equal(bronze.touchedBytes, 80 * MIB);
    bronze.wantsBytes = 180 * MIB;
    await seconds(25);
    t.equal(bronze.usesBytes, 180 * MIB, 'and took what it needed');
    bronze.wantsBytes = 100 * MIB;
    bronze.usesBytes = 100 * MIB;
    await seconds(5);
    t.equal(bronze.touchedBytes, 100 * MIB);
    t.match(scene.explained('bronze-1'), {
      mode: 'auto',
      said: /^let the page cache balloon of bronze-1/,
      now: /; its page cache balloon holds 156 MiB of at most 205 MiB, and may hold less when more than 1.9 GiB are available$/,
    });
    t.equal(scene.said('policy-took', 'bronze-1').length, 0, 'without a control loop');
    t.equal(bronze.driver?.balloonPfns.size, 0);

    // Of 6000 MiB, 250 + 100 are used, and all but 500 of the rest by others.
    const gold = scene.guest('gold-1');
    gold.wantsBytes = gold.usesBytes = 250 * MIB;
    scene.othersBytes = 6000 * MIB - 250 * MIB - 100 * MIB - 500 * MIB;
    const until = scene.tick + 20;
    while (scene.said('policy-took', 'bronze-1').length === 0 && scene.tick < until) await scene.second();
    t.match(scene.said('policy-took', 'bronze-1')[0], {
      message:
        / from bronze-1 \(bronze\): host available 8 % < reserve 10 %; 0 % of its memory idle, 156 MiB given by itself$/,
    });
    const target = scene.served.get('bronze-1')?.view.balloon.targetBytes ?? 0;
    t.ok(target > 156 * MIB && target <= RAM_BYTES - floor, `${target} with what it gave`);
    await seconds(30);
    t.ok(bronze.touchedBytes < 100 * MIB, 'the host has some of it');

    // A constant load: nothing moves any more.
    const moves = (): number =>
      scene.events.filter(({ event }) => /^policy-(took|gave|cache)/.test(event)).length;
    const before = moves();
    await seconds(60);
    t.ok(moves() - before <= 1, `${moves() - before} changes in a minute`);
    scene.othersBytes = 0;
    await seconds(90);
    t.equal(scene.served.get('bronze-1')?.view.balloon.targetBytes, 0, 'all is refunded');
    t.match(scene.said('policy-cache-limit', 'bronze-1').at(-1), {
      message: /hold nothing: host available 9\d %, reserve 10 %, so the host has room for its page cache$/,
      fields: { cause: 'keeps-cache', toBytes: 0 },
    });
    t.equal(bronze.cachedBytes, 0);
  },
);

void t.test(
  'what changed since the last statistics of a guest is not idle memory, and is not taken again',
  async (t) => {
    const scene = await Scene.open(t, 8 * RAM_BYTES, ['gold-1', 'bronze-1']);
    const [gold, bronze] = [scene.guest('gold-1'), scene.guest('bronze-1')];
    bronze.touchedBytes = RAM_BYTES;
    for (let n = 0; n < 3; n++) await scene.second();
    t.same(scene.said('policy-took', 'bronze-1'), []);

    // Each says that most of its memory is available, and one of them uses its memory now.
    scene.statsCome = false;
    gold.usesBytes = gold.wantsBytes = gold.touchedBytes = 0.95 * RAM_BYTES;
    scene.othersBytes = 5.7 * RAM_BYTES;
    for (let n = 0; n < 5; n++) await scene.second();
    t.ok(scene.said('policy-took', 'bronze-1').length > 0, 'the host is short, and one has memory to give');
    t.same(scene.said('policy-took', 'gold-1'), [], 'the other has none');
    const taken = scene.served.get('bronze-1')?.view.balloon.actualBytes ?? 0;
    t.ok(taken <= RAM_BYTES - bronze.usesBytes, `${taken} is no more than what was idle`);
    t.equal(bronze.stalls, 0);
  },
);

void t.test('who has a page cache balloon only yields by will or by force', async (t) => {
  const scene = await Scene.open(t, 330 * MIB, ['gold-1', 'bronze-1'], {}, { 'bronze-1': 'alone' });
  const bronze = scene.guest('bronze-1');
  bronze.wantsBytes = 200 * MIB;
  scene.guest('gold-1').wantsBytes = 100 * MIB;
  const forced = () => scene.said('policy-forced', 'bronze-1');
  for (let second = 0; second < 90 && forced().length === 0; second++) await scene.second();
  t.equal(scene.said('policy-took', 'bronze-1').length, 0, 'it cannot be asked');
  t.match(forced()[0], {
    message: /^held bronze-1 \(bronze\) to memory.high .*: it owes .* and did not yield/,
  });
  t.match(scene.explained('bronze-1'), {
    force: 'high',
    now: /; this VM is to give .* by itself; its page cache/,
  });
  // Now it does with less.
  bronze.wantsBytes = 60 * MIB;
  for (let second = 0; second < 10; second++) await scene.second();
  t.match(scene.said('policy-released', 'bronze-1')[0], { fields: { highBytes: null } });
  t.equal(scene.explained('bronze-1')?.force, 'none');
  t.equal(scene.limit('bronze-1', 'high'), 'max');
});

void t.test(
  'a page cache balloon is left alone where the policy observes, or an operator set it',
  async (t) => {
    const observing = await Scene.open(
      t,
      85 * MIB,
      ['bronze-1'],
      { mode: 'observe' },
      { 'bronze-1': 'alone' },
    );
    for (let second = 0; second < 3; second++) await observing.second();
    t.equal(observing.caches.get('bronze-1')?.view.balloon.targetBytes, 0);
    t.equal(observing.said('policy-advice', 'bronze-1').length, 1, 'said once');
    t.match(observing.explained('bronze-1')?.said, /^would have let the page cache balloon of bronze-1/);

    const both = await Scene.open(t, 82 * MIB, ['bronze-1'], { mode: 'observe' }, { 'bronze-1': 'beside' });
    for (let second = 0; second < 6; second++) await both.second();
    const advised = both.said('policy-advice', 'bronze-1').map(({ fields }) => fields['cause']);
    t.ok(advised.length > 1, 'of both balloons');
    t.equal(new Set(advised).size, advised.length, `each is said once: ${advised.join(', ')}`);

    const acting = await Scene.open(t, 600 * MIB, ['bronze-1'], {}, { 'bronze-1': 'beside' });
    acting.caches.get('bronze-1')?.vm.setTarget({ cacheLimitBytes: 8 * MIB });
    for (let second = 0; second < 3; second++) await acting.second();
    t.equal(acting.caches.get('bronze-1')?.view.balloon.targetBytes, 8 * MIB);
    t.match(acting.explained('bronze-1'), { mode: 'manual', now: /policy resume bronze-1/ });
    acting.engine.change({ paused: false, vm: 'bronze-1' });
    await acting.second();
    t.equal(
      acting.caches.get('bronze-1')?.view.balloon.targetBytes,
      0,
      'governed again, on a host with room',
    );
  },
);

void t.test('a guest is not believed to hold what the host has', (t) => {
  const tree = new HostTree(t);
  tree.write('proc/meminfo', 'MemTotal: 262144 kB\nMemAvailable: 8192 kB\n');
  const liar: GovernedVm = {
    name: 'liar',
    pid: FIRST_PID,
    ramBytes: RAM_BYTES,
    sharedBytes: RAM_BYTES,
    allocatedBytes: RAM_BYTES,
    limitable: false,
    cgroup: { usage: () => null, watch: () => null, unwatch: () => undefined },
    manual: false,
    leftAlone: false,
    figures: {
      state: 'running',
      inhibited: null,
      stats: {
        ageSeconds: 0,
        receivedAt: monotonicNow(),
        values: new Map([['VIRTIO_BALLOON_S_AVAIL', 200 * MIB]]),
      },
      targetBytes: 0,
      actualBytes: 0,
      actualUnknown: false,
      sharesMemory: true,
      deflatesOnOom: true,
      slowness: 0,
      cache: { targetBytes: 200 * MIB, actualBytes: 200 * MIB },
      askable: true,
      pool: null,
    },
    setPolicyTarget: () => undefined,
    setCacheLimit: () => undefined,
    playing: () => undefined,
    force: () => Promise.resolve(),
  };
  const said: string[] = [];
  const settings = new PolicySettings({ policy: { mode: 'auto' } });
  const engine = new PolicyEngine(
    settings,
    () => [liar],
    (event, message) => said.push(`${event}: ${message}`),
    { paths: tree.paths },
  );
  engine.tick();
  engine.close();
  t.match(
    said.find((text) => text.startsWith('policy-took')),
    /; 78 % of its memory idle$/,
  );
  t.end();
});
