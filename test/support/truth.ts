// Shapes of memory that a VM can have, states that a VM can be in, and the oracle: what is claimed of the VM against the words of its
// guest and of the host. A new shape or state is one entry.
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import type { DaemonProcess } from './daemon.js';
import { eventually } from './deadline.js';
import { reserveHugePages } from './huge-pages.js';
import { GIB, MIB, startDaemon } from './e2e.js';
import { Guest } from './lab/guest.js';
import { memfdAllocatedBytes } from './lab/memfd-blocks.js';

const NAME = 'shape';
const BALLOON_BYTES = 100 * MIB;
/** Claims may differ by this part of the guest's memory. */
const TOLERANCE = 0.02;
/** Memory that a guest touches again while it is looked at, and the rest of what it gave up that shares pages with others. */
const SLACK_BYTES = 24 * MIB;

interface Shape {
  /** QEMU's arguments for memory. Those of a machine with slots for more come with `slots`. */
  readonly memory: (folder: string) => readonly string[];
  readonly slots?: true;
  /** Done to the guest once it runs. */
  readonly then?: (guest: Guest) => Promise<unknown>;
  readonly sharedBytes: number;
  /** The part of it that can go back to the host; all of it where nothing is said. */
  readonly discardableBytes?: number;
  /** Its verdict in each state where no other holds. */
  readonly verdict?: string;
  /** Why what is given up does not leave the host; nothing: it does. */
  readonly stays?: 'pages of 2 MiB' | 'pages of 1 GiB';
  /** What the host is to lend: so many pages of this size. */
  readonly hugePages?: { readonly count: number; readonly pageBytes: number };
  /** No balloon is possible: the verdict that says why. */
  readonly stopped?: string;
}

const object = (type: string, id: string, mib: number, more = ''): string[] => [
  '-object',
  `${type},id=${id},size=${mib}M${more}`,
];
const memfd = (id: string, mib: number, more = ',share=on'): string[] =>
  object('memory-backend-memfd', id, mib, more);
const main = (mib: number): string[] => ['-machine', 'memory-backend=mem', '-m', `${mib}M`];
const slots = (mib: number): string[] => [
  ...['-machine', 'memory-backend=mem', '-m', `${mib}M,slots=2,maxmem=8G`],
  ...memfd('mem', mib),
];
const NVDIMM = ['-machine', 'nvdimm=on', '-device', 'nvdimm,memdev=nv'];
const VIRTIO_MEM = [...memfd('vm', 2048), '-device', 'virtio-mem-pci,id=vmem,memdev=vm,requested-size=0'];
const onDisk = (folder: string, id: string, mib: number): string[] =>
  object('memory-backend-file', id, mib, `,mem-path=${join(folder, id)},share=on`);
const node = (id: number, backend: string): string[] => ['-numa', `node,nodeid=${id},memdev=${backend}`];

/** Of these, the suite tries all; the others are for `truth-matrix.check`. */
export const SHAPES: Readonly<Record<string, Shape>> = {
  plain: { memory: () => [...main(512), ...memfd('mem', 512)], sharedBytes: 512 * MIB },
  'virtio-mem, nothing plugged': {
    memory: () => [...slots(512), ...VIRTIO_MEM],
    slots: true,
    sharedBytes: 2.5 * GIB,
  },
  'a private NUMA node': {
    memory: () => [
      ...['-m', '768M', ...memfd('mem', 512), ...object('memory-backend-ram', 'own', 256)],
      ...[...node(0, 'mem'), ...node(1, 'own')],
    ],
    sharedBytes: 512 * MIB,
    verdict: 'memory-not-discardable',
  },
  'nvdimm on disk': {
    memory: (folder) => [...slots(512), ...onDisk(folder, 'nv', 128), ...NVDIMM],
    slots: true,
    sharedBytes: 640 * MIB,
    discardableBytes: 512 * MIB,
  },
  'all memory on disk': {
    memory: (folder) => [...main(512), ...onDisk(folder, 'mem', 512)],
    sharedBytes: 512 * MIB,
    discardableBytes: 0,
    verdict: 'memory-not-discardable',
  },
  'a DIMM that is plugged in later': {
    memory: () => slots(512),
    slots: true,
    then: (guest) => guest.addMemory(256),
    sharedBytes: 768 * MIB,
  },
};

export const MORE_SHAPES: Readonly<Record<string, Shape>> = {
  'two regions, around the hole below 4 GiB': {
    memory: () => [...main(3600), ...memfd('mem', 3600)],
    sharedBytes: 3600 * MIB,
  },
  'virtio-mem, half of it plugged': {
    memory: () => [...slots(512), ...VIRTIO_MEM],
    slots: true,
    then: (guest) => guest.qmp('qom-set', { path: 'vmem', property: 'requested-size', value: GIB }),
    sharedBytes: 2.5 * GIB,
  },
  nvdimm: {
    memory: () => [...slots(512), ...memfd('nv', 128), ...NVDIMM],
    slots: true,
    sharedBytes: 640 * MIB,
  },
  'virtio-pmem': {
    memory: () => [...slots(512), ...memfd('pm', 128), '-device', 'virtio-pmem-pci,memdev=pm'],
    slots: true,
    sharedBytes: 640 * MIB,
  },
  ivshmem: {
    memory: () => [
      ...[...main(512), ...memfd('mem', 512), ...memfd('iv', 256)],
      ...['-device', 'ivshmem-plain,memdev=iv'],
    ],
    sharedBytes: 768 * MIB,
  },
  'a DIMM from the start': {
    memory: () => [...slots(512), ...memfd('d', 256), '-device', 'pc-dimm,memdev=d'],
    slots: true,
    sharedBytes: 768 * MIB,
  },
  'a private DIMM': {
    memory: () => [
      ...[...slots(512), ...object('memory-backend-ram', 'd', 256)],
      ...['-device', 'pc-dimm,memdev=d'],
    ],
    slots: true,
    sharedBytes: 512 * MIB,
    // Linux puts the rings where most memory is free.
    stopped: 'ring-stopped',
  },
  'memory-backend-ram': {
    memory: () => [...main(512), ...object('memory-backend-ram', 'mem', 512, ',share=on')],
    sharedBytes: 512 * MIB,
  },
  'memory that was all allocated at the start': {
    memory: () => [...main(512), ...memfd('mem', 512, ',share=on,prealloc=on')],
    sharedBytes: 512 * MIB,
  },
  'memory that is locked': {
    memory: () => [...main(512), ...memfd('mem', 512), '-overcommit', 'mem-lock=on'],
    sharedBytes: 512 * MIB,
  },
  hugetlbfs: {
    memory: () => [...main(512), ...memfd('mem', 512, ',share=on,hugetlb=on,hugetlbsize=2M')],
    sharedBytes: 512 * MIB,
    hugePages: { count: 300, pageBytes: 2 * MIB },
    stays: 'pages of 2 MiB',
  },
  'hugetlbfs with pages of 1 GiB': {
    memory: () => [...main(2048), ...memfd('mem', 2048, ',share=on,hugetlb=on,hugetlbsize=1G')],
    sharedBytes: 2 * GIB,
    hugePages: { count: 2, pageBytes: GIB },
    stays: 'pages of 1 GiB',
  },
};

interface State {
  /** Brings a VM with 100 MiB in its balloon into this state. */
  readonly enter: (guest: Guest, daemon: DaemonProcess) => Promise<unknown>;
  readonly state: VmView['state'];
  /** The verdict that holds in it; undefined: that of the shape. */
  readonly verdict?: string;
  /** The balloon that its guest has, or had; 100 MiB where nothing is said. */
  readonly balloonBytes?: number;
  /** The guest cannot be asked. */
  readonly mute?: true;
}

const DEVICE = 'dev0';

export const STATES = {
  running: { enter: () => Promise.resolve(), state: 'running' },
  paused: { enter: (guest) => guest.qmp('stop'), state: 'stopped', verdict: 'stopped', mute: true },
  'running again': { enter: (guest) => guest.qmp('cont'), state: 'running' },
  'after SIGKILL of the daemon': { enter: (_, daemon) => daemon.crash(), state: 'running' },
  'its driver gone': {
    enter: (guest) => guest.sh('rmmod virtio_balloon'),
    state: 'stopped',
    verdict: 'stopped',
    balloonBytes: 0,
  },
  'its driver back': { enter: (guest) => guest.sh('insmod /virtio_balloon.ko'), state: 'running' },
  'after a reset': { enter: (guest) => guest.systemReset(), state: 'running' },
} as const satisfies Record<string, State>;

async function unplug(guest: Guest, times: number): Promise<void> {
  await guest.qmp('device_del', { id: DEVICE });
  await eventually(
    () =>
      guest.events.filter(
        ({ event, data }) => event === 'DEVICE_DELETED' && JSON.stringify(data).includes(`"${DEVICE}"`),
      ).length === times,
    () => 'QEMU unplugs the device',
  );
}

/** These need ACPI's hot plug of PCI devices, which machines with slots have. */
export const PLUG_STATES: Readonly<Record<string, State>> = {
  unplugged: {
    enter: (guest) => unplug(guest, 1),
    state: 'stopped',
    verdict: 'stopped',
    balloonBytes: 0,
  },
  'plugged in again': {
    enter: (guest) =>
      guest.qmp('device_add', {
        driver: 'vhost-user-test-device-pci',
        id: DEVICE,
        chardev: 'vhost0',
        'virtio-id': 5,
        num_vqs: 7,
        vq_size: 256,
        config_size: 44,
      }),
    state: 'running',
  },
};

/** A guest of this shape whose balloon `daemon` serves; it has not booted yet. */
async function bootShape(t: Test, daemon: DaemonProcess, shape: Shape): Promise<Guest> {
  const { hugePages } = shape;
  if (hugePages !== undefined)
    t.ok(reserveHugePages(t, hugePages.count, hugePages.pageBytes), 'the host lends huge pages');
  // On the disk that the tests are on: others may have no room, or be no disk.
  const folder = mkdtempSync(join(import.meta.dirname, 'memory-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const socket = ['-chardev', `socket,id=vhost0,path=${daemon.socketPath}`];
  const device =
    'vhost-user-test-device-pci,id=dev0,chardev=vhost0,virtio-id=5,num_vqs=7,vq_size=256,config_size=44';
  const guest = await Guest.boot({
    name: NAME,
    memoryMib: 0,
    pasted: ['-name', `guest=${NAME}`, ...shape.memory(folder), ...socket, '-device', device],
    ...(shape.slots === true && { hotplugSlots: 2 }),
  });
  t.teardown(() => guest.kill());
  return guest;
}

/** The pages that the guest's kernel finds present, its own included. */
async function presentBytes(guest: Guest): Promise<number> {
  const { output } = await guest.sh('cat /proc/zoneinfo');
  const pages = [...output.matchAll(/^ +present +(\d+)$/gm)].map(([, count]) => Number(count));
  return pages.reduce((sum, count) => sum + count, 0) * 4096;
}

/** The pages that its balloon drivers took and did not give back, by the guest's own count since it booted. */
async function balloonedBytes(guest: Guest): Promise<number> {
  const { output } = await guest.sh('cat /proc/vmstat');
  const count = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(output)?.[1] ?? 0);
  return (count('balloon_inflate') - count('balloon_deflate')) * 4096;
}

/** Whatever QEMU names its memory; the code that it translates is in a memfd, too. */
const MEMORY = /^\/memfd:(?!tcg)/;

/** Compares what is claimed with the words of the guest and of the host, until all agree; fails with those that do not. */
async function agree(
  t: Test,
  { daemon, guest, shape, state }: { daemon: DaemonProcess; guest: Guest; shape: Shape; state: State },
): Promise<void> {
  let lies: string[] = [];
  let ramBytes = (await daemon.show(NAME)).ramBytes;
  const look = async (): Promise<boolean> => {
    const mute = state.mute === true;
    if (state.state === 'running') await daemon.stats(NAME).catch(() => undefined);
    const present = mute ? ramBytes : await presentBytes(guest);
    const inGuest = mute ? (state.balloonBytes ?? BALLOON_BYTES) : await balloonedBytes(guest);
    const host = memfdAllocatedBytes(guest.pid, MEMORY);
    const view = await daemon.show(NAME);
    const { memory, balloon, diagnosis } = view;
    ramBytes = view.ramBytes;
    const given = state.balloonBytes ?? BALLOON_BYTES;
    const discardable = shape.discardableBytes ?? shape.sharedBytes;
    const verdict = state.verdict ?? shape.verdict;
    const near = (claim: number, truth: number): boolean => Math.abs(claim - truth) <= TOLERANCE * present;
    const claims: Record<string, boolean> = {
      [`state ${view.state}, is ${state.state}`]: view.state === state.state,
      [`RAM ${ramBytes}, the kernel has ${present}`]: near(ramBytes, present),
      [`shared ${memory.sharedBytes}, is ${shape.sharedBytes}`]: memory.sharedBytes === shape.sharedBytes,
      [`discardable ${memory.discardableBytes}, is ${discardable}`]: memory.discardableBytes === discardable,
      [`allocated ${memory.allocatedBytes}, the host says ${host}`]: near(memory.allocatedBytes, host),
      [`balloon ${balloon.actualBytes}, the guest says ${inGuest}`]: balloon.actualBytes === inGuest,
      [`the guest's balloon is ${inGuest}, and should be ${given}`]: inGuest === given,
      [`verdict ${diagnosis?.code}, should be ${verdict}`]: diagnosis?.code === verdict,
      [`of ${discardable}, the host has ${host} with ${given} given up`]:
        discardable < shape.sharedBytes ||
        shape.stays !== undefined ||
        shape.verdict !== undefined ||
        host <= discardable - given + SLACK_BYTES,
    };
    lies = Object.keys(claims).filter((claim) => claims[claim] !== true);
    return lies.length === 0;
  };
  await eventually(look, () => lies.join('; '), 250);
  t.pass('all that is claimed is so');
}

/** Boots a guest of this shape, takes 100 MiB of it, and brings it into these states, one after the other. */
export async function tryShape(
  t: Test,
  shape: Shape,
  states: Readonly<Record<string, State>>,
): Promise<void> {
  const daemon = await startDaemon(t, { supervise: true });
  const guest = await bootShape(t, daemon, shape);
  const early = await daemon.until(NAME, ({ ramBytes }) => ramBytes > 0, "QEMU's own word is known");
  t.equal(early.balloon.actualBytes, 0);
  await guest.waitReady();
  await shape.then?.(guest);
  await daemon.until(
    NAME,
    ({ state, memory }) => state === 'running' && memory.sharedBytes === shape.sharedBytes,
    `it runs, and shares ${shape.sharedBytes}`,
  );
  if (shape.stopped !== undefined) {
    const { diagnosis } = await daemon.until(NAME, (vm) => vm.diagnosis !== null, 'a verdict');
    t.match(diagnosis, { code: shape.stopped, remedy: /share=on for all/ });
    const { code, stderr } = await daemon.ctl('set', NAME, '--balloon', '100M', '--wait', '--timeout', '1');
    t.equal(code, 4);
    t.match(stderr, /share=on for all/);
    return;
  }
  await daemon.ok('set', NAME, '--balloon', `${BALLOON_BYTES}`, '--wait');
  for (const [name, state] of Object.entries(states)) {
    await t.test(name, async (t) => {
      await state.enter(guest, daemon);
      await agree(t, { daemon, guest, shape, state });
    });
  }
  if (!('unplugged' in states)) return;
  await unplug(guest, 2);
  await guest.qmp('chardev-remove', { id: 'vhost0' });
  await eventually(
    async () => (await daemon.list()).length === 0,
    () => 'a VM without the chardev leaves the list',
  );
  t.equal(await balloonedBytes(guest), 0, 'the guest has all of its memory');
}
