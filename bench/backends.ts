import { parseArgs } from 'node:util';
import { ControlClient } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { eventually } from '../test/support/deadline.js';
import { Guest } from '../test/support/lab/guest.js';
import { HostSettings } from './host-settings.js';
import { cpuSeconds } from './process-cost.js';
import { median, report, type Row } from './table.js';

/**
 * The memory that `balloonctl qemu-args` prints beside QEMU's memory-backend-memfd, which QEMU maps 4 KiB off and which it printed
 * before; both with shmem_enabled=always, in one run, in turns. A real Linux guest touches its memory, inflates and deflates, and then
 * frees memory that it reports, which comes in whole blocks of 2 MiB. Milliseconds of discarding and CPU of the daemon are for each GiB.
 */
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } });
const ROUNDS = Number(values.rounds);
const RAM_MIB = 2048;
const TOUCHED_MIB = 1700;
const BALLOON_BYTES = 1200 * 2 ** 20;
const GIB = 2 ** 30;
/** Guests report within some seconds after memory was freed. */
const STILL_MS = 4000;

const BACKENDS = {
  'memory-backend-memfd': `memory-backend-memfd,id=mem,size=${RAM_MIB}M,share=on`,
  'memory-backend-ram,share=on': `memory-backend-ram,id=mem,size=${RAM_MIB}M,share=on`,
} as const;

/** For each GiB: milliseconds in which threads discarded, and seconds of the daemon's CPU. */
interface Cost {
  readonly discardMs: number;
  readonly cpuSeconds: number;
  /** The memory that the figures are of. */
  readonly gib: number;
}

interface Side {
  readonly backend: string;
  readonly way: Way;
  readonly guest: Guest;
  readonly daemon: DaemonProcess;
  readonly costs: Cost[];
}

type Way = 'reported' | 'inflated';

const FEATURES = ['MUST_TELL_HOST', 'STATS_VQ', 'DEFLATE_ON_OOM'] as const;

const settings = new HostSettings();
settings.set('/sys/kernel/mm/transparent_hugepage/shmem_enabled', 'always');

/** One that reports, or one that does not, so that each figure is of one way alone. */
async function start(backend: string, object: string, way: Way): Promise<Side> {
  const features = [...FEATURES, ...(way === 'reported' ? ['REPORTING'] : [])];
  const names = features.map((name) => `"VIRTIO_BALLOON_F_${name}"`).join(', ');
  const daemon = await DaemonProcess.start({
    config: `[[socket]]\npath = "{folder}/vhost.sock"\nfeatures = [${names}]\n`,
  });
  const queues = features.length;
  const device = `vhost-user-test-device-pci,chardev=vhost,virtio-id=5,num_vqs=${queues},vq_size=256,config_size=16`;
  const guest = await Guest.boot({
    name: 'vm',
    memoryMib: RAM_MIB,
    pasted: [
      ...['-name', 'guest=vm', '-machine', 'memory-backend=mem', '-m', `${RAM_MIB}M`, '-object', object],
      ...['-chardev', `socket,id=vhost,path=${daemon.socketPath}`, '-device', device],
    ],
  });
  await guest.waitReady();
  await guest.qmp('stop');
  return { backend, way, guest, daemon, costs: [] };
}

interface Look {
  readonly discardedBytesTotal: number;
  readonly discardSecondsTotal: number;
  readonly pendingBytes: number;
  readonly cpu: number;
}

async function look({ daemon }: Side): Promise<Look> {
  const cpu = cpuSeconds(daemon.pid);
  const { discardedBytesTotal, discardSecondsTotal, pendingBytes } = (await daemon.show('vm')).balloon;
  return {
    discardedBytesTotal: discardedBytesTotal ?? 0,
    discardSecondsTotal: discardSecondsTotal ?? 0,
    pendingBytes,
    cpu,
  };
}

async function costOf(side: Side, work: () => Promise<unknown>): Promise<Cost> {
  const before = await look(side);
  await work();
  const after = await still(side);
  const gib = (after.discardedBytesTotal - before.discardedBytesTotal) / GIB;
  return {
    gib,
    discardMs: ((after.discardSecondsTotal - before.discardSecondsTotal) * 1000) / gib,
    cpuSeconds: (after.cpu - before.cpu) / gib,
  };
}

/** Resolves when nothing more is discarded, with the figures of the moment when that ended. */
async function still(side: Side): Promise<Look> {
  let last = await look(side);
  let at = performance.now();
  await eventually(
    async () => {
      const now = await look(side);
      if (now.discardedBytesTotal !== last.discardedBytesTotal || now.pendingBytes > 0) {
        last = now;
        at = performance.now();
      }
      return performance.now() - at > STILL_MS;
    },
    () => 'discards end',
    500,
  );
  return last;
}

async function round(side: Side): Promise<void> {
  const { guest, daemon, way, costs } = side;
  await guest.qmp('cont');
  await guest.hold(TOUCHED_MIB, 1);
  await still(side);
  if (way === 'inflated') await guest.drop();
  const client = new ControlClient(daemon.controlPath);
  const give = (): Promise<unknown> =>
    way === 'inflated' ? client.setTarget('vm', { balloonBytes: BALLOON_BYTES }) : guest.drop();
  costs.push(await costOf(side, give));
  await daemon.inflateTo('vm', 0);
  await guest.qmp('stop');
}

const sides: Side[] = [];
try {
  for (const way of ['reported', 'inflated'] as const) {
    for (const [backend, object] of Object.entries(BACKENDS)) sides.push(await start(backend, object, way));
  }
  for (let n = 0; n < ROUNDS; n++) for (const side of sides) await round(side);
} finally {
  for (const { guest, daemon } of sides) {
    await guest.kill();
    await daemon.stop();
  }
  settings.restore();
}

const rows = sides.map(({ backend, way, costs }): Row => {
  const of = (figure: (cost: Cost) => number): number => median(costs.map(figure));
  return {
    memory: backend,
    'given up': way,
    GiB: of(({ gib }) => gib).toFixed(2),
    'discarding ms/GiB': of(({ discardMs }) => discardMs).toFixed(1),
    'daemon CPU ms/GiB': of(({ cpuSeconds }) => cpuSeconds * 1000).toFixed(1),
  };
});
report(
  'backends',
  rows,
  sides.map(({ backend, way, costs }) => ({ backend, way, costs })),
);
