// VMs in pools of huge pages: each pool is planned for by itself, and so is the RAM of the host.
import t, { type Test } from 'tap';
import type { GovernedVm, VmFigures } from '../../src/governor/governed-vm.js';
import { PolicyEngine } from '../../src/governor/tick.js';
import { monotonicNow } from '../../src/os/clock.js';
import { PolicySettings, type PolicyFile } from '../../src/policy/settings.js';
import { HostTree } from '../support/host-tree.js';
import type { SeenEvent } from '../support/served-vm.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const RAM_BYTES = GIB;
const HUGE = 2 * MIB;
/** Seconds between two ticks. */
const TICK_SECONDS = 5;

/** A guest that touched all of its memory, and follows its target at once. */
class Guest implements GovernedVm {
  readonly pid = 2 ** 22 + 1;
  readonly ramBytes = RAM_BYTES;
  readonly sharedBytes = RAM_BYTES;
  readonly limitable = true;
  manual = false;
  readonly leftAlone = false;
  usesBytes = 300 * MIB;
  targetBytes = 0;
  /** The part of its balloon that went back to where the memory is from. */
  returns = 1;
  discards = true;
  readonly forced: (number | null)[] = [];
  readonly cgroup = {
    usage: () => ({ currentBytes: 64 * MIB, stat: { anon: 64 * MIB }, pressure: this.pressure }) as never,
    watch: () => null,
    unwatch: () => undefined,
  };
  pressure: { some: { avg10: number } } | null = null;

  constructor(
    readonly name: string,
    public pageBytes: number | null,
  ) {}

  get allocatedBytes(): number {
    return RAM_BYTES - this.targetBytes * this.returns;
  }

  get figures(): VmFigures {
    const { targetBytes, usesBytes, pageBytes, discards } = this;
    const available = Math.max(0, RAM_BYTES - targetBytes - usesBytes);
    const values = new Map([['VIRTIO_BALLOON_S_AVAIL', available]]);
    return {
      ...{ state: 'running', inhibited: null, cache: null, askable: true, targetBytes },
      actualBytes: targetBytes,
      actualUnknown: false,
      sharesMemory: true,
      deflatesOnOom: true,
      slowness: 0,
      stats: { ageSeconds: 0, receivedAt: monotonicNow(), values },
      pool: pageBytes === null ? null : { pageBytes, discards },
    };
  }

  setPolicyTarget(bytes: number): void {
    this.targetBytes = bytes;
  }

  setCacheLimit(): void {
    throw new Error('it has no page cache balloon');
  }

  playing(): undefined {
    return undefined;
  }

  force(highBytes: number | null): Promise<void> {
    this.forced.push(highBytes);
    return Promise.resolve();
  }
}

interface Memory {
  /** The RAM of the host, without that of its pools. */
  ramMib?: number;
  /** Of each size of pages, the pages that are reserved for the pool, in MiB. */
  pools?: Readonly<Record<number, number>>;
}

class Host {
  readonly tree: HostTree;
  readonly engine: PolicyEngine;
  readonly events: (SeenEvent & { vm: string })[] = [];
  readonly vms: Guest[];
  ramBytes: number;
  readonly pools = new Map<number, number>();
  now = 0;

  constructor(
    t: Test,
    vms: readonly Guest[],
    { ramMib = 8192, pools = {} }: Memory,
    policy: PolicyFile['policy'] = { mode: 'auto', 'share-pools': true },
  ) {
    this.tree = new HostTree(t);
    this.vms = [...vms];
    this.ramBytes = ramMib * MIB;
    for (const [size, mib] of Object.entries(pools)) this.pools.set(Number(size), mib * MIB);
    const band = ['gold', 'bronze'].map((name) => ({ name, match: [`${name}-*`], min: '20%' }));
    this.engine = new PolicyEngine(
      new PolicySettings({ policy: { ...policy, band } }),
      () => this.vms,
      (event, message, fields = {}, vm = '') => this.events.push({ event, message, fields, vm }),
      { paths: this.tree.paths, now: () => this.now },
    );
    t.teardown(() => this.engine.close());
  }

  ticks(count: number): void {
    for (let tick = 0; tick < count; tick++) {
      this.now += TICK_SECONDS;
      this.#write();
      this.engine.tick();
    }
    this.#write();
  }

  /** The memory that is left where these VMs are: in the pool of pages of this size, or in the RAM. */
  leftBytes(pageBytes: number | null): number {
    const used = this.vms.filter((vm) => vm.pageBytes === pageBytes);
    const total = pageBytes === null ? this.ramBytes : (this.pools.get(pageBytes) ?? 0);
    return total - used.reduce((sum, vm) => sum + vm.allocatedBytes, 0);
  }

  said(event: string): string[] {
    return this.events.filter((seen) => seen.event === event).map(({ message }) => message);
  }

  wordsOn(name: string): string {
    return this.engine.view().vms.find((vm) => vm.name === name)?.now ?? '';
  }

  #write(): void {
    const [total, left] = [this.ramBytes, Math.max(0, this.leftBytes(null))].map((bytes) => bytes / 1024);
    this.tree.write('proc/meminfo', `MemTotal: ${total} kB\nMemAvailable: ${left} kB\n`);
    for (const [size, reserved] of this.pools) {
      const left = this.leftBytes(size);
      // A pool that is to be smaller than its use has surplus pages until they are freed.
      const pages = (bytes: number): number => Math.ceil(bytes / size);
      const surplus = pages(Math.max(0, -left));
      this.tree.pool(size, { total: pages(reserved) + surplus, free: pages(Math.max(0, left)), surplus });
    }
  }
}

function targets(vms: readonly Guest[]): number[] {
  return vms.map(({ targetBytes }) => targetBytes / MIB);
}

void t.test('a pool that is short gets memory from its own VMs, whatever the RAM has', (t) => {
  const vms = [new Guest('gold-1', HUGE), new Guest('bronze-1', HUGE), new Guest('bronze-ram', null)];
  const host = new Host(t, vms, { pools: { [HUGE]: 2048 } });
  host.ticks(0);
  t.match(
    host.wordsOn('gold-1'),
    /available to VMs in the pool of 2 MiB pages 0 B < reserve 205 MiB/,
    'before a tick',
  );
  host.ticks(20);
  const [gold, bronze, ram] = targets(vms);
  t.ok((bronze ?? 0) > 0, 'bronze of the pool gives');
  t.equal(gold, 0, 'gold does not');
  t.equal(ram, 0, 'nor does a VM in the RAM');
  t.ok(host.leftBytes(HUGE) >= 204.8 * MIB, `the pool has its reserve: ${host.leftBytes(HUGE) / MIB} MiB`);
  t.match(
    host.said('policy-took')[0],
    /^took \S+ MiB from bronze-1 \(bronze\): available to VMs in the pool of 2 MiB pages 0 % < reserve 10 %; /,
  );
  const fields = host.events.find(({ event }) => event === 'policy-took')?.fields ?? {};
  t.match(fields, { receiver: 'pool', poolPageBytes: HUGE, poolAvailableBytes: 0 });
  t.notOk('hostAvailableBytes' in fields, 'the event is not of the host');
  t.match(
    host.wordsOn('bronze-1'),
    /because the reserve is there: available to VMs in the pool of 2 MiB pages \d+\S* MiB, reserve 205 MiB; \d+ MiB of this VM stay taken$/,
  );
  t.match(host.wordsOn('bronze-ram'), /because the reserve is there: host available 7 GiB, reserve 819 MiB$/);
  const { pools, host: ramState } = host.engine.view();
  t.match(pools, [{ pageBytes: HUGE, totalBytes: 2 * GIB, availableBytes: host.leftBytes(HUGE) }]);
  t.match(ramState, { totalBytes: 8 * GIB, availableBytes: 7 * GIB, short: false });
  t.match([...host.engine.measures().pools], [{ pageBytes: HUGE, reserveBytes: Math.round(0.1 * 2 * GIB) }]);
  t.end();
});

void t.test('a host whose RAM is short takes nothing from VMs in a pool, which has plenty', (t) => {
  const vms = [new Guest('bronze-ram', null), new Guest('gold-ram', null), new Guest('bronze-1', HUGE)];
  const host = new Host(t, vms, { ramMib: 2048, pools: { [HUGE]: 4096 } });
  host.ticks(20);
  const [bronze, , pooled] = targets(vms);
  t.ok((bronze ?? 0) > 0, 'bronze of the RAM gives');
  t.equal(pooled, 0, 'bronze of the pool does not');
  t.ok(host.leftBytes(null) >= 204.8 * MIB);
  t.end();
});

void t.test('where the RAM and two pools are short, each is filled by its own VMs', (t) => {
  const sizes = [null, HUGE, GIB];
  const vms = sizes.flatMap((size, n) => [new Guest(`gold-${n}`, size), new Guest(`bronze-${n}`, size)]);
  const host = new Host(t, vms, { ramMib: 2048, pools: { [HUGE]: 2048, [GIB]: 2048 } });
  host.ticks(20);
  for (const size of sizes) t.ok(host.leftBytes(size) >= 204.8 * MIB, `${size}: the reserve is there`);
  t.same(
    host.engine.view().pools?.map(({ pageBytes }) => pageBytes),
    [HUGE, GIB],
  );
  t.end();
});

void t.test('a guest in a pool that is short gets memory of another VM in that pool', (t) => {
  const [gold, bronze, ram] = [
    new Guest('gold-1', HUGE),
    new Guest('bronze-1', HUGE),
    new Guest('bronze-ram', null),
  ];
  const host = new Host(t, [gold, bronze, ram], { pools: { [HUGE]: 1843 } });
  // Gold was asked for memory before, and now it needs it.
  gold.targetBytes = 400 * MIB;
  gold.usesBytes = 620 * MIB;
  host.ticks(20);
  t.ok(gold.targetBytes < 400 * MIB, 'gold has more');
  t.ok(bronze.targetBytes > 0, 'bronze has less');
  t.equal(ram.targetBytes, 0);
  t.match(host.said('policy-gave')[0], /available to VMs in the pool of 2 MiB pages/);
  t.end();
});

void t.test(
  'a pool that shrinks below its use takes until it has its reserve again, or is left alone at none',
  (t) => {
    const vms = [new Guest('gold-1', HUGE), new Guest('bronze-1', HUGE)];
    const host = new Host(t, vms, { pools: { [HUGE]: 4096 } });
    host.ticks(3);
    t.same(targets(vms), [0, 0], 'the pool has plenty');
    host.pools.set(HUGE, 1600 * MIB);
    host.ticks(60);
    t.ok(host.leftBytes(HUGE) >= 160 * MIB, `it has ${host.leftBytes(HUGE) / MIB} MiB left`);
    const settled = targets(vms);
    host.pools.set(HUGE, 0);
    host.ticks(60);
    t.same(targets(vms), settled, 'a pool that is to have no pages is no pool to keep a reserve of');
    t.match(host.said('policy-degraded'), [
      /^the policy leaves VMs in the pool of 2 MiB pages alone, because the pool has no pages that are reserved for it/,
    ]);
    t.match(
      host.wordsOn('gold-1'),
      /^the policy leaves this VM alone: the pool of 2 MiB pages cannot be read/,
    );
    t.end();
  },
);

void t.test('nothing is taken in vain from a VM in a pool', (t) => {
  const vms = [new Guest('bronze-1', HUGE), new Guest('bronze-2', HUGE), new Guest('bronze-3', HUGE)];
  const [untold, parts, good] = vms as [Guest, Guest, Guest];
  untold.discards = false;
  parts.returns = 0.1;
  const host = new Host(t, vms, { pools: { [HUGE]: 3072 } });
  host.ticks(60);
  t.equal(untold.targetBytes, 0, 'its driver need not tell, so that its pages are kept');
  t.match(host.wordsOn('bronze-1'), /^the policy takes nothing from this VM: .* need not tell before/);
  const most = parts.targetBytes / RAM_BYTES;
  t.ok(most < 0.2, `no more once it is seen to give parts of pages: ${most}`);
  t.match(
    host.wordsOn('bronze-2'),
    /: of \S+ MiB in its balloon, the pool of 2 MiB pages got \S+ MiB, because only/,
  );
  t.ok(good.targetBytes > parts.targetBytes, 'the others give');
  t.end();
});

void t.test('a VM in a pool is not forced, and its VMM’s stalls are not its guest’s', (t) => {
  const stuck = new Guest('bronze-1', HUGE);
  stuck.setPolicyTarget = () => undefined;
  stuck.pressure = { some: { avg10: 50 } };
  const host = new Host(t, [stuck], { pools: { [HUGE]: 1024 } });
  host.ticks(60);
  t.ok(host.said('policy-took').length > 0, 'it was asked');
  t.same(stuck.forced, [], 'and never forced, since no memory cgroup limits huge pages');
  t.notMatch(host.said('policy-took').join('\n'), /stalled/);
  t.end();
});

void t.test('pools are not shared unless the operator says so', (t) => {
  const vms = [new Guest('bronze-1', HUGE), new Guest('bronze-2', HUGE)];
  const host = new Host(t, vms, { pools: { [HUGE]: 2048 } }, { mode: 'auto' });
  host.ticks(20);
  t.same(targets(vms), [0, 0]);
  t.match(
    host.wordsOn('bronze-1'),
    /its memory is in the pool of 2 MiB pages, which VMs share only with share-pools = true/,
  );
  t.same([host.engine.view().pools, [...host.engine.measures().pools]], [[], []]);
  t.end();
});

void t.test('memory in [policy] is of the RAM, and pages of a pool do not count as taken', (t) => {
  const vms = [new Guest('bronze-1', HUGE), new Guest('bronze-ram', null)];
  const host = new Host(
    t,
    vms,
    { pools: { [HUGE]: 4096 } },
    { mode: 'auto', memory: '2G', 'share-pools': true },
  );
  host.ticks(2);
  t.same(targets(vms), [0, 0]);
  t.match(host.engine.view().host, { totalBytes: 2 * GIB, availableBytes: GIB });
  t.end();
});

void t.test('a reserve in bytes is a share of the RAM, and a pool keeps the same share', (t) => {
  const vm = new Guest('bronze-1', HUGE);
  const policy = { mode: 'auto', reserve: '2G', 'share-pools': true } as const;
  const host = new Host(t, [vm], { ramMib: 8192, pools: { [HUGE]: 2048 } }, policy);
  host.ticks(20);
  t.equal(vm.targetBytes, 0, 'half of the pool is there, and a quarter is kept');
  t.match(host.engine.view().pools, [{ reserveBytes: 512 * MIB }]);
  t.end();
});

void t.test('a VM whose memory went from the RAM into a pool is released from force', (t) => {
  const vm = new Guest('bronze-1', null);
  const host = new Host(t, [vm], { ramMib: 8192, pools: { [HUGE]: 4096 } });
  host.ticks(1);
  t.same(vm.forced, []);
  vm.pageBytes = HUGE;
  host.ticks(2);
  t.same(vm.forced, [null], 'once');
  t.match(host.wordsOn('bronze-1'), /available to VMs in the pool/);
  host.vms.length = 0;
  host.ticks(1);
  t.same(host.engine.view().pools, [], 'a pool without VMs is none of the policy’s');
  t.end();
});
