// What a dump of a VM brings back of its balloon is discarded again, with a real QEMU and a real Linux.
import t from 'tap';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { eventually } from '../support/deadline.js';
import type { Guest } from '../support/lab/guest.js';

/** Compressed, so that next to nothing is written. */
async function dump(guest: Guest, folder: string): Promise<void> {
  const file = `file:${folder}/dump`;
  await guest.qmp('dump-guest-memory', { paging: false, protocol: file, format: 'kdump-zlib', detach: true });
  let status: unknown;
  await eventually(
    async () => {
      ({ status } = (await guest.qmp('query-dump')) as { status: unknown });
      return status === 'completed' || status === 'failed';
    },
    () => `the dump ends, which is ${String(status)}`,
  );
  if (status === 'failed') throw new Error(`QEMU cannot dump the guest: ${guest.stderr}`);
}

void t.test('a dump brings the balloon back to the host, and it is discarded again', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'dumped', { memoryMib: 1024 });
  await guest.hold(30, 5);
  await daemon.ok('set', 'dumped', '--balloon', '700M', '--wait');
  await daemon.until('dumped', ({ balloon }) => balloon.pendingBytes === 0, 'all is discarded');
  // A dump touches all memory: also what the guest never used, which stays there and is in no balloon.
  await dump(guest, daemon.folder);
  const [all, kept] = [1024 * MIB, (1024 - 700) * MIB];
  let left = 0;
  await eventually(
    () => (left = guest.memfdAllocatedBytes()) > all - 50 * MIB || daemon.log.includes('pages-refilled'),
    () => `the dump touched all memory, and left ${left}`,
  );
  await eventually(
    () => (left = guest.memfdAllocatedBytes()) <= kept + 4 * MIB,
    () => `${left} are still there, where ${kept} are not in the balloon`,
  );
  t.equal(await guest.verify(), 0, 'the guest has all that it holds');
  const { balloon, verdict } = await daemon.until(
    'dumped',
    (vm) => vm.balloon.refilledBytes === 0 && vm.balloon.pendingBytes === 0,
    'nothing of the balloon is there',
  );
  t.equal(balloon.actualBytes, 700 * MIB);
  t.equal(balloon.pinnedBytes, 0);
  t.equal(verdict, null);
  const told = (await daemon.events()).map(({ event }) => event);
  t.ok(told.includes('pages-refilled') && !told.includes('pages-used'), told.join(' '));
  await daemon.ok('set', 'dumped', '--balloon', '0', '--wait');
  t.ok(await guest.eat(400), 'pages that came back are used');
  t.equal(await guest.verify(), 0);
});
