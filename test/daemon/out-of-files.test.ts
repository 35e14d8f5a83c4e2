// A daemon that may have no more files open: the VM that needs one is told of by that cause, and the daemon serves the others.
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createEventFd } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { connectUnix } from '../../src/os/socket.js';
import { BALLOON_F, BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { pfns } from '../support/served-vm.js';
import { encodeMessage, hasBit, REQUEST, u64s } from '../support/wire.js';

const STEP =
  /EMFILE: let the daemon have more files open \(LimitNOFILE= in its unit, or ulimit -n\), then restart the VM/;
/** More than the daemon opens for one VM. */
const MOST_FREE = 28;
/** So often a test looks which files stay open. */
const LOOKS = 20;
const LOOK_MS = 25;
/** A frontend of a VM that is not served gives up. */
const GIVE_UP_MS = 1000;

/** The files that the process has open now. */
function openFiles(pid: number): Set<number> {
  return new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
}

/** The files that the process keeps open: one that it only reads (`/proc/meminfo`) is closed in the meantime. */
async function keptFiles(pid: number): Promise<Set<number>> {
  let kept = openFiles(pid);
  for (let look = 0; look < LOOKS; look++) {
    await sleep(LOOK_MS);
    const open = openFiles(pid);
    kept = new Set([...kept].filter((fd) => open.has(fd)));
  }
  return kept;
}

/** The process may open `free` files more than those of `used`. */
function leaveFiles(pid: number, free: number, used = openFiles(pid)): void {
  let most = 0;
  for (let left = free; left > 0 || used.has(most); most++) if (!used.has(most)) left--;
  execFileSync('prlimit', ['--pid', String(pid), `--nofile=${most}:`]);
}

function saidBy(daemon: DaemonProcess, event: string): string[] {
  const lines = daemon.log.split('\n').filter((line) => line.includes(`"event":"${event}"`));
  return lines.map((line) => (JSON.parse(line) as { message: string }).message);
}

inEachOrder('a daemon without file descriptors says so of the VM that needs one', async (t) => {
  const daemon = await DaemonProcess.start();
  t.teardown(() => daemon.stop());
  const asking = new Frontend({ socket: daemon.socketPath });
  await asking.connect();
  t.teardown(() => asking.close());
  // An order without replies is sent before the daemon has taken its files: an answer comes after them.
  await asking.ask(REQUEST.GET_FEATURES);

  leaveFiles(daemon.pid, 0, await keptFiles(daemon.pid));
  const late = connectUnix(daemon.socketPath);
  const told = (times: number) => () => Promise.resolve(saidBy(daemon, 'vm-dropped').length === times);
  await eventually(told(1), () => 'a VMM that comes is told of');
  // The daemon tries again each second, and has told of it.
  await sleep(2500);
  t.ok(await told(1)(), 'once');
  const event = createEventFd();
  await asking.sendRaw(encodeMessage(REQUEST.SET_VRING_CALL, 1, u64s(0n)), [event]);
  await eventually(told(2), () => 'so is a VMM that sends a file');
  for (const said of saidBy(daemon, 'vm-dropped')) t.match(said, STEP);
  t.same([...saidBy(daemon, 'frontend-error'), ...saidBy(daemon, 'request-failed')], [], 'no VMM is blamed');

  leaveFiles(daemon.pid, MOST_FREE);
  await eventually(
    async () => (await daemon.list()).length === 1,
    () => 'the VMM that waited is served',
  );
  for (const fd of [event, late]) closeFd(fd);
});

inEachOrder('wherever in the life of a VM the files end, the others go on', async (t, order) => {
  const daemon = await DaemonProcess.start();
  t.teardown(() => daemon.stop());
  const honest = new Frontend({ socket: daemon.socketPath });
  await honest.connect();
  t.teardown(() => honest.close());
  const driver = await BalloonDriver.start(honest);
  const pages = pfns(driver.firstFreePfn, 64);

  let lives = 0;
  const live = async (): Promise<void> => {
    const frontend = new Frontend({ socket: daemon.socketPath, timeoutMs: GIVE_UP_MS });
    try {
      await frontend.connect();
      const guest = await BalloonDriver.start(frontend, { timeoutMs: GIVE_UP_MS });
      await guest.inflate(pfns(guest.firstFreePfn, 64));
      if (hasBit(order.passes, BALLOON_F.REPORTING)) {
        const gpa = (guest.firstFreePfn + 128) * PAGE_BYTES;
        await guest.report([{ gpa, len: 64 * PAGE_BYTES }]);
      }
      await guest.deflate(pfns(guest.firstFreePfn, 64));
      lives++;
    } catch (error) {
      t.ok(error instanceof Error);
    } finally {
      frontend.close();
    }
  };
  for (let free = 0; free <= MOST_FREE; free++) {
    leaveFiles(daemon.pid, free);
    await live();
    await driver.inflate(pages);
    await driver.deflate(pages);
    leaveFiles(daemon.pid, 2 * MOST_FREE);
    await eventually(
      async () => (await daemon.list()).length === 1,
      () => `the other VM is gone, with ${free} files left`,
    );
  }
  t.ok(lives > 0 && lives < MOST_FREE, `${lives} lives of ${MOST_FREE}`);
  // What is looked at from time to time, with nothing to look at it by.
  leaveFiles(daemon.pid, 0);
  await driver.inflate(pages);
  await sleep(5000);
  leaveFiles(daemon.pid, 2 * MOST_FREE);
  t.match(await daemon.list(), [{ state: 'running', balloon: { actualBytes: 64 * PAGE_BYTES } }]);
  t.same(honest.protocolViolations, []);
  t.notMatch(daemon.log, /daemon-failed/);
});
