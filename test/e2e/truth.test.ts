// The sizes that are claimed of a VM, whatever its shape, against the guest's own and the host's. A new shape is one line.
import t from 'tap';
import { boot, GIB, MIB, startDaemon } from '../support/e2e.js';
import { eventually } from '../support/deadline.js';
import type { Guest, GuestOptions } from '../support/lab/guest.js';

interface Shape {
  readonly options: Partial<GuestOptions>;
  /** What is done to the guest once it runs. */
  readonly then?: (guest: Guest) => Promise<void>;
  readonly sharedBytes: number;
}

const memfd = (id: string, mib: number, share: boolean): string[] => [
  '-object',
  `memory-backend-memfd,id=${id},size=${mib}M,share=${share ? 'on' : 'off'}`,
];
const VIRTIO_MEM = [...memfd('vm', 2048, true), '-device', 'virtio-mem-pci,memdev=vm,requested-size=0'];

const SHAPES: Record<string, Shape> = {
  plain: { options: {}, sharedBytes: 512 * MIB },
  'two regions, around the hole below 4 GiB': { options: { memoryMib: 3600 }, sharedBytes: 3600 * MIB },
  'virtio-mem, nothing plugged': {
    options: { hotplugSlots: 1, extraArgs: VIRTIO_MEM },
    sharedBytes: 2.5 * GIB,
  },
  nvdimm: {
    options: {
      hotplugSlots: 1,
      extraArgs: [
        ...['-machine', 'nvdimm=on'],
        ...memfd('nv', 128, true),
        ...['-device', 'nvdimm,memdev=nv'],
      ],
    },
    sharedBytes: 640 * MIB,
  },
  ivshmem: {
    options: { extraArgs: [...memfd('iv', 256, true), '-device', 'ivshmem-plain,memdev=iv'] },
    sharedBytes: 768 * MIB,
  },
  'a DIMM from the start': {
    options: { hotplugSlots: 1, extraArgs: [...memfd('d', 256, true), '-device', 'pc-dimm,memdev=d'] },
    sharedBytes: 768 * MIB,
  },
  'a DIMM that is plugged in later': {
    options: { hotplugSlots: 1 },
    then: (guest) => guest.addMemory(256),
    sharedBytes: 768 * MIB,
  },
};

/** The pages that the guest's kernel finds present, its own included. */
async function presentBytes(guest: Guest): Promise<number> {
  const { output } = await guest.sh('cat /proc/zoneinfo');
  return [...output.matchAll(/^ +present +(\d+)$/gm)].reduce(
    (sum, [, pages]) => sum + Number(pages) * 4096,
    0,
  );
}

for (const [name, { options, then, sharedBytes }] of Object.entries(SHAPES)) {
  void t.test(name, async (t) => {
    const daemon = await startDaemon(t);
    const guest = await boot(t, daemon, 'shape', options);
    await then?.(guest);
    const shared = await daemon.until(
      'shape',
      ({ memory }) => memory.sharedBytes === sharedBytes,
      `the VMM shares ${sharedBytes}`,
    );
    t.equal(shared.memory.ramBytes, shared.ramBytes);
    let found = '';
    let ramBytes = 0;
    await eventually(
      async () => {
        await daemon.stats('shape');
        const present = await presentBytes(guest);
        ({ ramBytes } = await daemon.show('shape'));
        found = `its kernel has ${present}, claimed are ${ramBytes}`;
        return Math.abs(ramBytes - present) <= 0.02 * present;
      },
      () => found,
    );
    const host = guest.memfdAllocatedBytes();
    const { memory } = await daemon.show('shape');
    t.ok(Math.abs(memory.allocatedBytes - host) <= 0.02 * ramBytes, `${memory.allocatedBytes}, host ${host}`);
    // All it has: nothing is taken.
    await daemon.ok('set', 'shape', '--memory', `${ramBytes}`, '--wait');
    t.equal((await daemon.show('shape')).balloon.actualBytes, 0);
    await daemon.ok('set', 'shape', '--balloon', '100M', '--wait');
    t.equal((await daemon.show('shape')).balloon.actualBytes, 100 * MIB);
  });
}
