// Honest VMs beside each kind that misbehaves, in one daemon: theirs is done, and nothing of the other is left.
import { readdirSync } from 'node:fs';
import { BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { Rogue, ROGUE_KINDS } from '../support/rogue.js';
import { pfns } from '../support/served-vm.js';
import { eventually } from '../support/deadline.js';

const HONEST = 6;
const RAM_BYTES = 8 * 2 ** 20;
const FIRST_PFN = 1024;
const PAGES = 64;
/** It is at it by then. */
const STEPS = 3;

function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  return eventually(condition, () => what, 50);
}

inEachOrder('honest VMs get their work done beside hostile ones', async (t) => {
  const daemon = await DaemonProcess.start();
  t.teardown(() => daemon.stop());
  const vms: { frontend: Frontend; driver: BalloonDriver }[] = [];
  for (let n = 0; n < HONEST; n++) {
    const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
    const frontend = new Frontend({ socket: daemon.socketPath, ram });
    await frontend.connect();
    const driver = await BalloonDriver.start(frontend, { areaGpa: 0x10000 });
    vms.push({ frontend, driver });
  }
  const pages = pfns(FIRST_PFN, PAGES);
  // What they said before is heard by the time that this is acked.
  for (const { driver } of vms) await driver.inflate(pages);
  const fds = readdirSync(`/proc/${daemon.pid}/fd`).length;
  for (const kind of ROGUE_KINDS) {
    const rogue = new Rogue(kind, daemon.socketPath);
    await until(() => rogue.steps >= STEPS, `${kind} is under way`);
    for (const { driver } of vms) {
      await driver.inflate(pages);
      await driver.deflate(pages);
    }
    await rogue.stop();
    await until(
      async () => (await daemon.list()).length === HONEST,
      `only the honest ones are left of ${kind}`,
    );
    await until(
      () => readdirSync(`/proc/${daemon.pid}/fd`).length <= fds + 2,
      `the fds of ${kind} are closed`,
    );
    t.pass(`${kind}: every buffer of the others was acked, nothing of it is left`);
  }
  t.same(
    vms.flatMap(({ frontend }) => frontend.protocolViolations),
    [],
  );
  t.equal(daemon.child.exitCode, null, 'the daemon lives');
  for (const { frontend } of vms) frontend.close();
  await until(async () => (await daemon.list()).length === 0, 'nobody is left');
});
