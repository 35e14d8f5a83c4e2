// Guests in three bands whose reactions are modelled; rings, memfds, VMs, limits and the engine are real.
import { rmSync, symlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { PolicyEngine, type GovernedVm } from '../../src/daemon/policy-engine.js';
import { PolicySettings, type PolicyFile } from '../../src/policy/settings.js';
import type { BalloonDriver } from '../support/balloon-driver.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { HostTree } from '../support/host-tree.js';
import { ServedVm, type SeenEvent } from '../support/served-vm.js';

const MIB = 2 ** 20;
const RAM_BYTES = 256 * MIB;
const FIRST_PID = 2 ** 22 + 1;
/** What a guest's use grows by in a second. */
const GROWTH_BYTES = 5 * MIB;
const STAT = { MEMFREE: 4, AVAIL: 6, ALLOC_STALL: 11 } as const;

class Guest {
  wantsBytes = 80 * MIB;
  usesBytes = 80 * MIB;
  touchedBytes = 80 * MIB;
  stalls = 0;
  driver: BalloonDriver | null = null;
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
  readonly rams = new Map<string, GuestRam>();
  readonly events: (SeenEvent & { vm: string; tick: number })[] = [];
  readonly engine: PolicyEngine;
  tick = 0;

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
      () => [...this.served].map(([name, { vm }]) => renamed(vm, name)),
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
  ) {
    const scene = new Scene(t, totalBytes, policy);
    for (const [index, name] of names.entries()) {
      const guest = new Guest();
      const pid = FIRST_PID + index;
      scene.tree.process(pid, `/vms/${name}`);
      scene.tree.memory(`/vms/${name}`, { current: guest.touchedBytes });
      const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
      const running = await ServedVm.running({
        pid,
        paths: scene.tree.paths,
        frontend: { ram },
        driver: { stats: () => guest.stats() },
      });
      guest.driver = running.driver;
      running.driver.followTarget();
      scene.guests.set(name, guest);
      scene.rams.set(name, ram);
      scene.served.set(name, running.served);
    }
    t.teardown(async () => {
      scene.engine.close();
      for (const served of scene.served.values()) await served.close();
    });
    return scene;
  }

  get availableBytes(): number {
    const used = [...this.guests.values()].reduce((sum, { touchedBytes }) => sum + touchedBytes, 0);
    return this.totalBytes - used;
  }

  guest(name: string): Guest {
    const guest = this.guests.get(name);
    if (guest === undefined) throw new Error(`no guest ${name}`);
    return guest;
  }

  limit(name: string, which: 'high' | 'max'): string {
    return this.tree.read(`cgroup/vms/${name}/memory.${which}`);
  }

  /** One second: guests live, the engine looks, drivers follow. */
  async second(): Promise<void> {
    this.tick++;
    for (const [name, guest] of this.guests) {
      guest.live();
      this.tree.write(`cgroup/vms/${name}/memory.current`, `${Math.round(guest.touchedBytes)}\n`);
      await this.served.get(name)?.vm.refreshStats(2000);
    }
    this.#meminfo();
    this.engine.tick();
    for (const [name, served] of this.served) {
      const { driver, refuses } = this.guest(name);
      if (driver === null || refuses) continue;
      await served.until(({ balloon }) => balloon.actualBytes === balloon.targetBytes, `${name} follows`);
      await driver.idle();
    }
    // Limits are written behind.
    for (const served of this.served.values()) await served.settle();
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

function renamed(vm: ServedVm['vm'], name: string): GovernedVm {
  return {
    name,
    pid: vm.pid,
    get allocatedBytes() {
      return vm.allocatedBytes;
    },
    get limitable() {
      return vm.limitable;
    },
    get manual() {
      return vm.manual;
    },
    set manual(manual) {
      vm.manual = manual;
    },
    get ramBytes() {
      return vm.ramBytes;
    },
    get figures() {
      return vm.figures;
    },
    setPolicyTarget: (bytes) => vm.setPolicyTarget(bytes),
    force: (high, max) => vm.force(high, max),
  };
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
  const counted = scene.engine.acted.filter(({ action }) => action === 'took' || action === 'gave');
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
      note();
    }
    t.equal(seen.at(-1), '- -');
    const released = scene.said('policy-released', 'bronze-1').map(({ fields }) => fields);
    t.match(released[0], { highBytes: Number, maxBytes: null }, 'memory.max first');
    t.match(released.at(-1), { highBytes: null, maxBytes: null }, 'memory.high last');
    t.equal(scene.engine.view().vms.find(({ name }) => name === 'bronze-1')?.force, 'none');
  },
);

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
      /^nothing more is asked of it, as the reserve is there: available to VMs 19.6 MiB, reserve 2 MiB$/,
    );
    const file = scene.rams.get('bronze-1')?.regions[0]?.file;
    writeSync(file?.fd ?? -1, Buffer.alloc(19 * MIB), 0, 19 * MIB, 0);
    await scene.second();
    t.match(scene.said('policy-took', 'bronze-1')[0], {
      message: /: available to VMs 4 % < reserve 10 %; \d+ % of it idle$/,
      fields: { donor: 'bronze-1', receiver: 'host' },
    });
    t.match(
      standing('bronze-1'),
      /^nothing more is asked of it, .*, reserve 2 MiB, 178 MiB of it stay taken$/,
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
