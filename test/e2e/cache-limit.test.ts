// The policy and a page cache balloon with its Linux driver in a real guest: the guest keeps its page cache while the host has
// room, gives it up when another guest takes that room, and keeps it again afterwards.
import t from 'tap';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { buildCacheModule, loadCacheModule } from '../support/lab/cache-module.js';

/** Page cache balloons grow where less than 207 MiB are available, and shrink from 299 on. */
const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"

[policy]
mode = "auto"
memory = "920M"
interval = 0.5
hold = 2

[[policy.band]]
name = "gold"
match = ["other"]
min = "100%"

[[policy.band]]
name = "bronze"
`;
const FILE_MIB = 250;
const DISK = '/dev/nvme0n1';

const module = await buildCacheModule();
const skip =
  module === null &&
  'Debian has no headers for the kernel of the lab any more: remove the folder that scripts/lab names, so that it gets a newer kernel';

void t.test('a guest keeps its page cache while the host has room for it', { skip }, async (t) => {
  const daemon = await startDaemon(t, { config: CONFIG });
  const guest = await boot(t, daemon, 'cached', {
    device: { numVqs: 7, configSize: 44 },
    acpi: true,
    kernelArgs: ['balloon=off'],
    extraArgs: [
      ...['-drive', 'if=none,id=file,driver=null-co,read-zeroes=on,size=256M'],
      ...['-device', 'nvme,drive=file,serial=file'],
    ],
  });
  const other = await boot(t, daemon, 'other');
  await loadCacheModule(guest, module ?? '');
  await daemon.until('cached', ({ cache }) => cache !== null, 'the page cache balloon runs');
  // The page cache of a disk ends with its last reader.
  await guest.sh(`sleep 1000000 <${DISK} >/dev/null 2>&1 &`);
  const diskMib = async (): Promise<number> => {
    const { output } = await guest.sh('cat /sys/block/nvme0n1/stat');
    return (Number(output.trim().split(/\s+/)[2]) * 512) / MIB;
  };
  /** MiB that came from the disk. */
  const read = async (): Promise<number> => {
    const before = await diskMib();
    t.equal((await guest.sh(`dd if=${DISK} of=/dev/null bs=1M count=${FILE_MIB}`)).code, 0);
    return (await diskMib()) - before;
  };
  const explained = async (): Promise<string> => daemon.ok('policy', 'explain', 'cached');

  t.ok((await read()) >= FILE_MIB);
  t.equal(await read(), 0, 'the second run reads nothing again');
  t.match(await explained(), /; its guest keeps its page cache until less than 207 MiB are available/);
  t.match(await daemon.show('cached'), { cache: { targetBytes: 0, actualBytes: 0 } });
  const full = guest.memfdAllocatedBytes();

  await other.hold(400, 1);
  const less = await daemon.until(
    'cached',
    ({ cache }) => cache !== null && cache.targetBytes > 0 && cache.actualBytes === cache.targetBytes,
    'the page cache balloon holds what it may',
  );
  await daemon.until('cached', () => guest.memfdAllocatedBytes() < full - 40 * MIB, 'the host has it');
  t.ok((less.cache?.targetBytes ?? 0) < 400 * MIB, 'and no more than the host lacks');
  t.match(
    await explained(),
    /let the page cache balloon of cached \(bronze\) hold up to .*; its page cache balloon holds .* and may hold less when more than 299 MiB are available/s,
  );
  t.equal(await other.verify(), 0);

  await other.drop();
  await daemon.until(
    'cached',
    ({ cache }) => cache?.targetBytes === 0 && cache.actualBytes === 0,
    'it gives all back',
  );
  t.match(await explained(), /hold nothing: .*so the host has room for its page cache/);
  await read();
  t.equal(await read(), 0, 'and the guest keeps its page cache again');
  t.notMatch((await guest.sh('dmesg')).output, /oom-kill|BUG|WARNING|Call Trace/, 'no complaint');
});
