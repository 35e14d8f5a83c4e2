import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { Guest, type GuestOptions } from '../support/lab/guest.js';

const MIB = 1024 ** 2;

async function boot(t: Test, options: Partial<GuestOptions> & { name: string }): Promise<Guest> {
  const startedMs = Date.now();
  const guest = await Guest.boot({ memoryMib: 256, ...options });
  t.teardown(() => guest.kill());
  await guest.waitReady();
  t.comment(`${guest.name}: user space after ${Date.now() - startedMs} ms`);
  return guest;
}

void t.test('a guest without a balloon', async (t) => {
  const guest = await boot(t, { name: 'plain' });
  t.ok(readFileSync(`/proc/${guest.pid}/cmdline`, 'utf8').includes('\0-name\0guest=plain\0'), 'pid is QEMU');

  t.same(await guest.sh('echo é; echo >&2 two; exit 3'), { code: 3, output: 'é\ntwo\n' });
  t.equal((await guest.sh('kill -9 $$')).code, 137);
  t.equal((await guest.sh('head -c 3000000 /dev/zero | tr "\\0" x')).output.length, 3_000_000);

  const { MemTotal = 0, MemFree: freeBefore = 0 } = await guest.meminfo();
  const allocatedBefore = guest.memfdAllocatedBytes();
  t.ok(MemTotal > 180 * MIB && MemTotal < 256 * MIB, `MemTotal ${MemTotal}`);
  await guest.hold(100, 7);
  t.equal(await guest.verify(), 0);
  t.equal(await guest.churn(1000, 8), 0);
  t.equal(await guest.verify(), 0);
  const { MemFree = 0 } = await guest.meminfo();
  t.ok(freeBefore - MemFree > 95 * MIB, 'the guest uses what is held');
  const allocated = guest.memfdAllocatedBytes();
  t.ok(allocated - allocatedBefore > 60 * MIB && allocated <= 256 * MIB, `${allocated} on the host`);
  await guest.drop();
  t.ok(await guest.eat(100));
  t.notOk(await guest.eat(1000), 'the OOM killer took it');

  await guest.sh('touch /tmp/here');
  await guest.reboot();
  t.not((await guest.sh('ls /tmp/here')).code, 0, 'rebooted');
  await guest.sh('touch /tmp/here');
  await guest.systemReset();
  t.not((await guest.sh('ls /tmp/here')).code, 0, 'reset');
  await guest.quit();
  t.equal(await guest.exitCode, 0);
});
