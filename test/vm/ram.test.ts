// How much memory a guest has. The sizes are those that real QEMU 11.1 and Linux 6.12 guests were seen to have.
import fc from 'fast-check';
import t from 'tap';
import { guestRam } from '../../src/vm/ram.js';
import { refuseTarget } from '../../src/vm/refused-orders.js';

const MIB = 2 ** 20;
const CASES: readonly [string, shared: number, assigned: number | null, told: number | null, ram: number][] =
  [
    ['nothing is shared yet', 0, 512, null, 512],
    ['nothing is shared yet, of another VMM', 0, null, null, 0],
    ['plain, before the driver runs', 512, 512, null, 512],
    ['plain', 512, 512, 471, 512],
    ['plain, without 384 KiB for the firmware', 2047.625, 2048, 1970, 2048],
    ['plain, of another VMM', 512, null, 471, 512],
    ['128 MiB, of which the kernel takes a quarter', 128, 128, 96, 128],
    ['with 512 MiB set aside for a crash', 8192, 8192, 7550, 8192],
    ['virtio-mem of 2 GiB, nothing plugged, before the driver runs', 2560, 512, null, 512],
    ['virtio-mem of 2 GiB, nothing plugged', 2560, 512, 471, 512],
    ['virtio-mem of 2 GiB, nothing plugged, of another VMM', 2560, null, 471, 471],
    ['virtio-mem of 2 GiB, 1 GiB plugged', 2560, 512, 1495, 1495],
    ['virtio-mem of 2 GiB, all plugged', 2560, 512, 2470, 2560],
    ['nvdimm of 128 MiB', 1152, 1024, 963, 1024],
    ['a DIMM of 256 MiB plugged in later', 768, 512, 727, 768],
    ['the same, not online yet', 768, 512, 471, 512],
    ['a private NUMA node', 512, 1024, 963, 1024],
    ['a private NUMA node, before the driver runs', 512, 1024, null, 1024],
    ['a guest that says more than there is', 512, 512, 2 ** 40, 512],
    ['a guest that says nothing', 512, 512, 0, 512],
    ['a guest that says too little', 512, 512, 1, 1],
  ];

void t.test('the size of each shape', (t) => {
  for (const [name, shared, assigned, told, ram] of CASES) {
    const facts = {
      sharedBytes: shared * MIB,
      assignedBytes: assigned === null ? null : assigned * MIB,
      toldBytes: told === null ? null : told * MIB,
    };
    t.equal(guestRam(facts, 0) / MIB, ram, name);
  }
  t.end();
});

void t.test('the size that the VMM was given is no more than all there is', (t) => {
  const sizes = { ramBytes: 2047.625 * MIB, leastBytes: 64 * MIB };
  t.doesNotThrow(() => refuseTarget('web', { memoryBytes: 2048 * MIB }, sizes));
  t.throws(() => refuseTarget('web', { memoryBytes: 2049 * MIB }, sizes), /is too much/);
  t.throws(() => refuseTarget('web', { balloonBytes: 2048 * MIB }, sizes), /is too much/);
  t.end();
});

void t.test('small changes of what the guest says change nothing, large ones do', (t) => {
  const told = (mib: number, before: number): number =>
    guestRam({ sharedBytes: 2560 * MIB, assignedBytes: 512 * MIB, toldBytes: mib * MIB }, before * MIB) / MIB;
  t.equal(told(1500, 1495), 1495);
  t.equal(told(1480, 1495), 1495);
  t.equal(told(1600, 1495), 1600);
  t.equal(told(1200, 1495), 1200);
  t.end();
});

void t.test('whatever the guest says, it has no more than the VMM shares or was given', (t) => {
  const size = fc.integer({ min: 1, max: 2 ** 52 });
  fc.assert(
    fc.property(
      size,
      fc.option(size),
      fc.option(fc.nat({ max: Number.MAX_SAFE_INTEGER })),
      size,
      (a, b, c, d) => {
        const ram = guestRam(
          { sharedBytes: a, assignedBytes: b, toldBytes: c },
          Math.min(d, Math.max(a, b ?? 0)),
        );
        return ram > 0 && ram <= Math.max(a, b ?? 0);
      },
    ),
  );
  t.end();
});
