// What the host refuses to discard: counted, said once, shown in the verdict, and nobody's harm.
import { execFileSync } from 'node:child_process';
import { inEachOrder } from '../support/each-order.js';
import { BALLOON_F } from '../support/balloon-driver.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { hasBit } from '../support/wire.js';

const FIRST = 4096;

/**
 * From now on its file cannot be discarded from, by mappings made before neither (linux/fcntl.h, F_ADD_SEALS with
 * F_SEAL_FUTURE_WRITE; mm/shmem.c, shmem_fallocate()).
 */
function seal(fd: number): void {
  const program = 'import fcntl, os, sys; fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), 1033, 0x10)';
  execFileSync('python3', ['-c', program, `/proc/${process.pid}/fd/${fd}`]);
}

inEachOrder('memory that its VMM sealed', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  const pages = pfns(FIRST, 600);
  for (const pfn of pages) frontend.ram.fillPage(pfn, 1);
  const [region] = frontend.ram.regions;
  if (region === undefined) throw new Error('no memory');
  seal(region.file.fd);
  const failed = (): boolean => served.saw('discard-failed').length > 0;
  await driver.inflate(pages.slice(0, 300));
  await served.until(failed, 'it fails');
  t.match(served.saw('discard-failed'), [{ fields: { code: 'EPERM' } }]);
  // A driver that need not tell may use them by now, and nothing is owed.
  const tells = hasBit(driver.ackedFeatures, BALLOON_F.MUST_TELL_HOST);
  const stays = tells ? '; 1\\.2 MiB given up by the guest is still in use' : '';
  t.match(
    served.view.verdict,
    new RegExp(`discards failed, the last with process_madvise: EPERM${stays}: see`),
  );
  t.equal(served.view.balloon.pendingBytes, tells ? 300 * PAGE_BYTES : 0);

  await driver.inflate(pages.slice(300));
  if (driver.queueNumbers.has('reporting'))
    await driver.report([{ gpa: (FIRST + 2000) * PAGE_BYTES, len: 2 ** 20 }]);
  await served.settle();
  t.equal(served.saw('discard-failed').length, 1, 'said once');
  t.equal(served.view.balloon.discardedBytesTotal, 0);
  await driver.deflate(pages);
  t.ok(
    pages.every((pfn) => frontend.ram.pageHolds(pfn, 1)),
    'the guest has all of it',
  );
  t.equal(served.view.balloon.actualBytes, 0);
  t.equal(served.view.state, 'running');
  await served.close();
});
