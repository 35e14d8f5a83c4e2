import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Guest, type GuestOptions } from '../support/lab/guest.js';

t.setTimeout(0);

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
  t.ok(commandLine(guest.pid).includes('\0-name\0guest=plain\0'), 'pid is QEMU');

  t.same(await guest.sh('echo é; echo >&2 two; exit 3'), { code: 3, output: 'é\ntwo\n' });
  t.equal((await guest.sh('kill -9 $$')).code, 137);
  t.equal((await guest.sh('head -c 3000000 /dev/zero | tr "\\0" x')).output.length, 3_000_000);

  const { MemTotal = 0, MemFree: freeBefore = 0 } = await guest.meminfo();
  const allocatedBefore = guest.memfdAllocatedBytes();
  t.ok(MemTotal > 180 * MIB && MemTotal < 256 * MIB, `MemTotal ${MemTotal}`);
  await guest.hold(100, 7);
  t.equal(await guest.verify(), 0);
  t.equal(await guest.churn(1000, 8), 0);
  t.equal(await guest.renew(5, 9), 0);
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

void t.test("a guest with QEMU's own balloon and room for more memory", async (t) => {
  const guest = await boot(t, { name: 'builtin', builtinBalloon: true, hotplugSlots: 1 });
  const { MemTotal: before = 0 } = await guest.meminfo();
  await guest.addMemory(128);
  await until(async () => ((await guest.meminfo()).MemTotal ?? 0) >= before + 128 * MIB);
  t.same(await guest.qmp('query-balloon'), { actual: 384 * MIB });

  await guest.hold(40, 1);
  await guest.eat(200);
  const allocated = guest.memfdAllocatedBytes();
  await guest.qmp('balloon', { value: 184 * MIB });
  await until(() => guest.memfdAllocatedBytes() < allocated - 50 * MIB);
  t.equal(await guest.verify(), 0);
  t.ok(guest.events.some(({ event }) => event === 'BALLOON_CHANGE'));
});

void t.test('what goes wrong is told', async (t) => {
  const refused = Guest.boot({ name: 'refused', memoryMib: 64, extraArgs: ['-device', 'no-such-device'] });
  await t.rejects(refused, { message: /guest refused: QEMU ended \(1\)[^]*no-such-device/ });

  const guest = await Guest.boot({ name: 'panic', memoryMib: 128, kernelArgs: ['rdinit=/bin/false'] });
  t.teardown(() => guest.kill());
  await t.rejects(guest.waitReady(1), { message: /user space did not start \(waited 1 ms\)/ });
  await t.rejects(guest.waitReady(), { message: /the guest panicked[^]*Attempted to kill init/ });
  await guest.kill();
  t.equal(await guest.exitCode, 'SIGKILL');
  await t.rejects(guest.sh('true'), { message: /QEMU ended \(SIGKILL\)/ });
});

void t.test('QEMU ends with the process that started it', async (t) => {
  const module = join(import.meta.dirname, '../support/lab/guest.js');
  const program = `import { Guest } from ${JSON.stringify(module)};
    console.log((await Guest.boot({ name: 'orphan', memoryMib: 64 })).pid);`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const isRunning = () => commandLine(Number(line.toString())).includes('\0guest=orphan\0');
  t.ok(isRunning());
  parent.kill('SIGKILL');
  await until(() => !isRunning());
});

async function until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await sleep(50);
}

/** Empty when the process has ended. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}
