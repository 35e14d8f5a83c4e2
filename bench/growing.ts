/**
 * How fast a guest touches memory anew: what the page cache balloon holds, or a traditional balloon that follows the working
 * set of the guest, and the host has taken, against what the same guest never touched, so that the host has not given it
 * either. Every run boots a guest; they take turns.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import {
  bothLimits,
  buildCacheModule,
  CACHE_SOCKETS,
  loadCacheModule,
} from '../test/support/lab/cache-module.js';
import { Guest } from '../test/support/lab/guest.js';
import { SIZED } from '../test/support/sized.js';
import { median, report, spread } from './table.js';
import { CPU } from './working-sets.js';

const MIB = 2 ** 20;
const MEMORY_MIB = 1024;
const TOUCHED_MIB = 512;
/** What was used before the balloon took it. */
const USED_MIB = 800;
const HELD_MIB = 800;
const TIMEOUT_MS = 120_000;
const KINDS = [
  'never touched',
  'in the balloon',
  'in the balloon, two devices',
  'in a traditional balloon, sized by the host',
] as const;

interface Run {
  readonly kind: (typeof KINDS)[number];
  readonly seconds: number;
  /** Of the touched memory, what the host did not have before. */
  readonly faultedMib: number;
}

async function run(kind: Run['kind'], module: string): Promise<Run> {
  const sized = kind === 'in a traditional balloon, sized by the host';
  const daemon = await DaemonProcess.start({ config: CACHE_SOCKETS + (sized ? SIZED : '') });
  let guest: Guest | null = null;
  try {
    guest = await Guest.boot({
      name: 'guest',
      memoryMib: MEMORY_MIB,
      sockets: sized
        ? [{ path: daemon.socketPath }]
        : bothLimits(daemon.folder, kind === 'in the balloon, two devices' ? 2 : 1),
      extraArgs: ['-cpu', CPU],
    });
    await guest.waitReady();
    if (!sized) await loadCacheModule(guest, module);
    if (sized)
      await daemon.until(
        'guest',
        ({ balloon }) => balloon.actualBytes > HELD_MIB * MIB,
        'the balloon holds it',
      );
    if (kind !== 'never touched' && !(await guest.eat(USED_MIB, TIMEOUT_MS)))
      throw new Error('the guest ran out of memory');
    if (sized)
      await daemon.until('guest', ({ balloon }) => balloon.actualBytes > HELD_MIB * MIB, 'it holds it again');
    if (kind === 'in the balloon' || kind === 'in the balloon, two devices') {
      await daemon.ok('set', 'guest', '--cache-limit', `${MEMORY_MIB}M`);
      await daemon.until(
        'guest',
        ({ cache }) => (cache?.actualBytes ?? 0) > HELD_MIB * MIB,
        'the balloon holds it',
      );
    }
    // The emulator has translated the code that touches.
    await guest.hold(8, 1);
    await guest.drop();
    await pause(3000);
    const beforeMib = guest.memfdAllocatedBytes() / MIB;
    const start = performance.now();
    await guest.hold(TOUCHED_MIB, 2, TIMEOUT_MS);
    const seconds = (performance.now() - start) / 1000;
    const faultedMib = guest.memfdAllocatedBytes() / MIB - beforeMib;
    const damaged = await guest.verify(TIMEOUT_MS);
    if (damaged > 0) throw new Error(`${damaged} pages were not as they were written`);
    return { kind, seconds, faultedMib };
  } finally {
    await guest?.kill();
    await daemon.stop();
  }
}

const { values } = parseArgs({ options: { runs: { type: 'string', default: '5' } } });
const module = await buildCacheModule();
if (module === null) throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
const runs: Run[] = [];
for (let n = 0; n < Number(values.runs); n++) {
  for (const kind of KINDS) {
    runs.push(await run(kind, module));
    process.stderr.write(`\r${n + 1} of ${values.runs}: ${kind} ${runs.at(-1)?.seconds.toFixed(2)} s   `);
  }
}
const seconds = (kind: Run['kind']): number[] =>
  runs.filter((one) => one.kind === kind).map((one) => one.seconds);
const fresh = median(seconds('never touched'));
report(
  'growing',
  KINDS.map((kind) => ({
    [`${TOUCHED_MIB} MiB were`]: kind,
    's, median (least..most)': spread(seconds(kind)),
    'MiB/s': (TOUCHED_MIB / median(seconds(kind))).toFixed(0),
    'of the speed': (fresh / median(seconds(kind))).toFixed(2),
    'MiB the host gave': median(runs.filter((one) => one.kind === kind).map((one) => one.faultedMib)).toFixed(
      0,
    ),
  })),
  runs,
);
