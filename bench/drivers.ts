import { setTimeout as pause } from 'node:timers/promises';
import { ControlClient } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { buildCacheModule, loadCacheModule } from '../test/support/lab/cache-module.js';
import { Guest } from '../test/support/lab/guest.js';
import { cpuSeconds } from './process-cost.js';
import { report, spread } from './table.js';

/**
 * The kernel's own balloon driver against that of guest/virtio_balloon, in one guest and on one device: 1 GiB that the guest
 * has touched goes in and out again, and the drivers take turns.
 */
const RAM_MIB = 2048;
const TOUCHED_MIB = 1700;
const BALLOON_BYTES = 2 ** 30;
const ROUNDS = 3;
const LOOK_MS = 5;
const TIMEOUT_MS = 120_000;
const DRIVERS = { kernel: '/virtio_balloon.ko', ours: '/ours.ko' } as const;
type Name = keyof typeof DRIVERS;

interface Move {
  readonly seconds: number;
  /** Of QEMU and of the daemon. */
  readonly guestCpu: number;
  readonly daemonCpu: number;
}

const module = await buildCacheModule();
if (module === null) throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
const daemon = await DaemonProcess.start();
const guest = await Guest.boot({
  name: 'vm',
  memoryMib: RAM_MIB,
  sockets: [{ path: daemon.socketPath }],
  kernelArgs: ['balloon=off'],
});
const client = new ControlClient(daemon.controlPath);
const moves: Record<Name, Record<'inflate' | 'deflate', Move[]>> = {
  kernel: { inflate: [], deflate: [] },
  ours: { inflate: [], deflate: [] },
};
try {
  await guest.waitReady();
  await loadCacheModule(guest, module);
  for (let round = 0; round < ROUNDS; round++) {
    const order: Name[] = round % 2 === 0 ? ['kernel', 'ours'] : ['ours', 'kernel'];
    for (const name of order) {
      await guest.sh(`rmmod virtio_balloon; insmod ${DRIVERS[name]}`);
      if (!(await guest.eat(TOUCHED_MIB, TIMEOUT_MS)))
        throw new Error(
          `the guest has too little memory with ${name}: ${(await guest.sh('free -m; dmesg | tail -60')).output}`,
        );
      moves[name].inflate.push(await move(BALLOON_BYTES));
      moves[name].deflate.push(await move(0));
    }
  }
  report(
    'drivers',
    Object.entries(moves).flatMap(([driver, both]) =>
      Object.entries(both).map(([direction, those]) => ({
        driver,
        direction,
        s: spread(those.map(({ seconds }) => seconds)),
        'CPU s of QEMU': spread(those.map(({ guestCpu }) => guestCpu)),
        'CPU s of balloond': spread(those.map(({ daemonCpu }) => daemonCpu)),
      })),
    ),
    moves,
  );
} finally {
  await guest.kill();
  await daemon.stop();
}

/** From the command until the guest says that it holds so much. */
async function move(balloonBytes: number): Promise<Move> {
  const before = [cpuSeconds(guest.pid), cpuSeconds(daemon.pid)] as const;
  const start = performance.now();
  await client.setTarget('vm', { balloonBytes });
  while ((await client.show('vm')).balloon.actualBytes !== balloonBytes) {
    if (performance.now() - start > TIMEOUT_MS) throw new Error(`never ${balloonBytes} in the balloon`);
    await pause(LOOK_MS);
  }
  return {
    seconds: (performance.now() - start) / 1000,
    guestCpu: cpuSeconds(guest.pid) - before[0],
    daemonCpu: cpuSeconds(daemon.pid) - before[1],
  };
}
