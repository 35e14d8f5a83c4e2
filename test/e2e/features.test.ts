// Every combination of offered features, with the Linux driver. Each guest has a device for each of 16
// combinations, of which it binds one at a time: Linux lets only one device at once do free page reporting.
import t, { type Test } from 'tap';
import { BalloonFeature, type BalloonFeatureName } from '../../protocol/virtio/balloon.js';
import type { VmView } from '../../protocol/control/schema.js';
import { queueCount } from '../../src/balloon/queue-roles.js';
import { featureMask } from '../../protocol/virtio/features.js';
import { MIB, startDaemon } from '../support/e2e.js';
import { Guest } from '../support/lab/guest.js';

const NAMES: BalloonFeatureName[] = [
  'VIRTIO_BALLOON_F_MUST_TELL_HOST',
  'VIRTIO_BALLOON_F_STATS_VQ',
  'VIRTIO_BALLOON_F_DEFLATE_ON_OOM',
  'VIRTIO_BALLOON_F_PAGE_POISON',
  'VIRTIO_BALLOON_F_REPORTING',
];

function combination(set: number): BalloonFeatureName[] {
  return NAMES.filter((_, n) => ((set >> n) & 1) === 1);
}

async function checkCombinations(t: Test, sets: readonly number[]): Promise<void> {
  const sockets = sets.map((set) => ({ set, features: combination(set) }));
  const config = sockets
    .map(
      ({ set, features }) =>
        `[[socket]]\npath = "{folder}/${set}.sock"\nname = "set-${set}"\nfeatures = ${JSON.stringify(features)}\nstats-interval = 0\n`,
    )
    .join('');
  const daemon = await startDaemon(t, { config });
  const guest = await Guest.boot({
    name: 'sets',
    memoryMib: 512,
    kernelArgs: ['init_on_free=1', 'balloon=off'],
    sockets: sockets.map(({ set, features }) => ({
      path: `${daemon.folder}/${set}.sock`,
      numVqs: queueCount(featureMask(...features.map((name) => BalloonFeature[name]))),
    })),
  });
  t.teardown(() => guest.kill());
  await guest.waitReady();
  const driver = '/sys/bus/virtio/drivers/virtio_balloon';
  // A device whose probe failed for want of page reporting is left in a state that Linux cannot bind again.
  await guest.sh('echo 0 > /sys/bus/virtio/drivers_autoprobe && insmod /virtio_balloon.ko');
  const found = await guest.sh('grep -lx 0x0005 /sys/bus/virtio/devices/*/device | cut -d/ -f6');
  const devices = found.output.trim().split('\n');
  t.equal(devices.length, sets.length);
  for (const device of devices) {
    const bound = await guest.sh(`echo ${device} > ${driver}/bind`);
    const view = (await daemon.list()).find(({ state }) => state === 'running');
    if (bound.code !== 0 || view === undefined) {
      t.fail(`${device} does not bind: ${bound.output}`);
      continue;
    }
    await checkDevice(t, daemon, view, combination(Number(view.name.slice('set-'.length))));
    await guest.sh(`echo ${device} > ${driver}/unbind`);
  }
  t.same(
    (await daemon.events()).filter(
      ({ vm, event, level }) =>
        // Drivers are bound one after the other, and a machine may be slow.
        vm !== undefined && event !== 'verdict' && (level === 'warn' || level === 'error'),
    ),
    [],
  );
}

async function checkDevice(
  t: Test,
  daemon: Awaited<ReturnType<typeof startDaemon>>,
  { name, features }: VmView,
  offered: BalloonFeatureName[],
): Promise<void> {
  const acked = features.filter((feature) => feature.startsWith('VIRTIO_BALLOON_'));
  // A guest that clears free pages reports them only to a host that takes its poison_val.
  const expected = offered.filter(
    (feature) => feature !== 'VIRTIO_BALLOON_F_REPORTING' || offered.includes('VIRTIO_BALLOON_F_PAGE_POISON'),
  );
  t.same(acked, expected, `${name} acks ${expected.join(' ')}`);
  await daemon.inflateTo(name, 16 * MIB);
  // Behind the ack; what is taken back before that never is.
  const discarded = ({ balloon }: VmView): boolean => Number(balloon.discardedBytesTotal) >= 16 * MIB;
  t.ok(await daemon.until(name, discarded, 'the host has it'), 'and gives memory back');
  await daemon.inflateTo(name, 4 * MIB);
  if (acked.includes('VIRTIO_BALLOON_F_STATS_VQ')) {
    t.type((await daemon.stats(name)).VIRTIO_BALLOON_S_MEMTOT, 'number');
  }
}

const all = Array.from({ length: 2 ** NAMES.length }, (_, set) => set);
for (const half of [0, 1]) {
  void t.test(`every combination of offered features, half ${half + 1} of 2`, (t) =>
    checkCombinations(
      t,
      all.filter((set) => set % 2 === half),
    ),
  );
}
