// A host that swaps: memory of an adopted VM in swap is memory of the VM, beside what the kernel charges and what it swapped.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { CompressedSwap } from '../support/compressed-swap.js';
import { eventually } from '../support/deadline.js';
import { MIB, startDaemon } from '../support/e2e.js';
import { Guest } from '../support/lab/guest.js';
import { MemoryGroup } from '../support/memory-group.js';

const RAM_MIB = 384;
const FILLED_MIB = 256;
const SWAPPED_MIB = 128;

/** By the host, whichever device it swaps to. */
function swappedKib(): number {
  const meminfo = readFileSync('/proc/meminfo', 'latin1');
  const kib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(meminfo)?.[1]);
  return kib('SwapTotal') - kib('SwapFree');
}

void t.test(
  'memory of QEMU itself, of which the host swaps a part, is memory of the VM',
  { skip: CompressedSwap.exists() && process.getuid?.() === 0 ? false : 'no zram here' },
  async (t) => {
    const daemon = await startDaemon(t);
    const socket = join(daemon.folder, 'swapped.qmp');
    const group = new MemoryGroup();
    t.teardown(() => group.remove());
    const swap = await CompressedSwap.on(2048 * MIB);
    t.teardown(() => swap.off());
    const guest = await group.around(() =>
      Guest.boot({
        name: 'swapped',
        memoryMib: RAM_MIB,
        builtinBalloon: true,
        extraArgs: [
          ...['-object', `memory-backend-ram,id=own,size=${RAM_MIB}M`, '-machine', 'memory-backend=own'],
          ...['-qmp', `unix:${socket},server=on,wait=off`],
        ],
      }),
    );
    t.teardown(() => guest.kill());
    await guest.waitReady();
    const filled = await guest.sh(
      `mkdir /full && mount -t tmpfs -o size=${FILLED_MIB}M tmp /full && dd if=/dev/urandom of=/full/file bs=1M count=${FILLED_MIB} 2>&1`,
    );
    t.equal(filled.code, 0, filled.output);
    await daemon.ok('adopt', socket);
    const onHost = async (): Promise<number> => (await daemon.show('swapped')).memory.allocatedBytes;
    await daemon.until('swapped', ({ stats }) => stats !== null, 'statistics come');
    const before = await onHost();
    const charged = group.usedBytes();
    t.ok(Math.abs(before - charged) < 48 * MIB, `${before} bytes, and the kernel charges ${charged}`);

    const swappedBefore = swappedKib();
    group.limit(before - SWAPPED_MIB * MIB);
    await eventually(
      () => swappedKib() - swappedBefore > (SWAPPED_MIB / 2) * 1024,
      () => `the host swaps: ${swappedKib()} KiB`,
    );
    // A reading is good for half a second.
    await sleep(1000);
    const after = await onHost();
    t.ok(after > before - 32 * MIB, `${after} of ${before} bytes are still the VM's`);
  },
);
