// Guests under KVM, in a host that QEMU emulates with an AMD CPU that has SVM and nested paging: pages are discarded under nested page
// tables. QEMU gives the device one MSI-X vector, and Linux needs two, so that calls go by a line and not by irqfd.
// KVM_SECONDS=600 KVM_KILLS=20 swings the target for ten minutes, and KVM_PARTS names parts of kvm.ts. Takes minutes and needs root, so
// it is run by name:
// node out/test/e2e/kvm.check.js
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { MIB } from '../support/e2e.js';
import type { KvmReport, Rounds } from '../support/host-lab/kvm.js';
import { BUILT, HostVm, ROOT, TESTS } from '../support/host-lab/host-vm.js';
import { buildCacheModule } from '../support/lab/cache-module.js';
import { MACHINES } from '../support/lab/machines.js';

t.setTimeout(0);

const SECONDS = Number(process.env['KVM_SECONDS'] ?? 60);
const KILLS = Number(process.env['KVM_KILLS'] ?? 5);
const PARTS = process.env['KVM_PARTS'] ?? 'figures,features,swings';
/** The PCI number of a virtio balloon: 0x1040 and its virtio id. */
const BALLOON = '0x1045';
const LARGE_BYTES = 256 * MIB;
const PROGRAM_MS = SECONDS * 1000 + 3_600_000;

const [{ stdout: made }, module] = await Promise.all([
  promisify(execFile)('sh', [join(ROOT, 'scripts/kvm-lab')]),
  buildCacheModule(),
]);
const folder = made.trim();

/** The lab of the host is on its second disk, and the driver of the page cache balloon beside the tests. */
function stage(root: string): Promise<void> {
  const tests = join(root, TESTS);
  mkdirSync(join(tests, 'scripts'), { recursive: true });
  writeFileSync(join(tests, 'scripts/lab'), 'echo /mnt/lab\n');
  if (module !== null) copyFileSync(module, join(tests, 'cache.ko'));
  return Promise.resolve();
}

/** Says now and then what the console has more, as all this takes long. */
function tell(t: Test, console: () => string): NodeJS.Timeout {
  let told = console().length;
  return setInterval(() => {
    const lines = console().slice(told).trim();
    told = console().length;
    if (lines !== '') t.comment(lines);
  }, 5000);
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

const skip =
  module === null &&
  'Debian has no headers for the kernel of the lab any more: remove the folder that scripts/lab names, so that it gets a newer kernel';

void t.test('guests under KVM', { skip }, async (t) => {
  const host = await HostVm.boot(stage, {
    machine: MACHINES['kvm-host'],
    kernel: join(folder, 'vmlinuz'),
    memoryMib: 3072,
    extraArgs: [
      ...['-drive', `if=none,id=kvm,format=raw,snapshot=on,cache=unsafe,file=${join(folder, 'disk')}`],
    ],
  });
  t.teardown(() => host.close());
  await host.unpack();
  // Not before it booted: the kernel names disks as it finds them, and mounts its root by name.
  await host.guest.qmp('device_add', { driver: 'nvme', id: 'kvm', drive: 'kvm', serial: 'kvm' });
  await host.ok('until [ -b /dev/nvme1n1 ]; do sleep 0.1; done');
  await host.ok(
    'mount -t debugfs none /sys/kernel/debug; mount /dev/nvme1n1 /mnt && for module in /mnt/modules/*; do /mnt/busybox insmod $module; done',
  );
  t.equal(await host.ok('cat /sys/module/kvm_amd/parameters/npt'), 'Y');
  const program = `${TESTS}/out/test/support/host-lab/kvm.js ${BUILT}/out/bin/balloond.js ${SECONDS} ${KILLS} ${PARTS}`;
  const environment = `GUEST_KERNEL_MODULE=${TESTS}/cache.ko`;
  const telling = tell(t, () => host.guest.consoleLog);
  t.teardown(() => clearInterval(telling));
  const { code, output } = await host.guest.sh(`${environment} node ${program} 2>/dev/console`, PROGRAM_MS);
  if (code !== 0) throw new Error(`${output}\n${host.guest.consoleLog}`);
  const report = JSON.parse(output) as KvmReport;
  for (const line of JSON.stringify(report, null, 1).split('\n')) t.comment(line);
  t.match(report, { isKvm: true, verdict: null, faults: [] });
  t.match(report.vectors, { [BALLOON]: 1 }, 'with two, Linux would use them, and calls would go by irqfd');
  const { figures, features, swings } = report;
  for (const way of ['inflateMs', 'deflateMs'] as const) {
    if (figures === null) break;
    const builtin = median(figures.builtin[way]);
    const tell = ({ [way]: each }: Rounds, driver: string): void =>
      t.comment(
        `${way} with ${driver}: ${each.join(' ')}; of QEMU's own balloon with the kernel's driver ${figures.builtin[way].join(' ')}: ${(median(each) / builtin).toFixed(2)}`,
      );
    tell(figures.ours, "the kernel's driver");
    tell(figures.ourDriver, 'our driver');
  }
  if (features !== null) assertFeatures(t, features);
  if (swings === null) return;
  t.ok(swings.moves > KILLS, 'the target swings');
  t.match(swings, { kills: KILLS, lostPages: 0, lostInTheEnd: 0 });
});

function assertFeatures(t: Test, features: NonNullable<KvmReport['features']>): void {
  const { fullBytes, inflatedBytes, beforeReportBytes, reportedBytes } = features;
  t.ok(fullBytes - inflatedBytes > 0.9 * LARGE_BYTES, 'the host gets what is inflated');
  t.ok(beforeReportBytes - reportedBytes > LARGE_BYTES / 2, 'the host gets what is reported');
  t.ok(features.cacheHeldBytes > LARGE_BYTES / 2, 'the page cache balloon holds memory');
  t.ok(features.cacheUnderPressureBytes < features.cacheHeldBytes, 'and gives it back');
  t.ok(features.highInflatedBytes < features.highDeflatedBytes, 'memory.high follows');
  t.ok(features.chargedBytes <= features.highDeflatedBytes);
}
