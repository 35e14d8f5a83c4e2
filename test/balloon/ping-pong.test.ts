// A guest that gives and takes the same pages as fast as it can harms nobody, not even itself.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { Bystander } from '../support/bystander.js';
import { DaemonProcess } from '../support/daemon.js';
import { inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import type { GuestRing } from '../support/guest-ring.js';
import { ModelGuest } from '../support/model-guest.js';
import { pfns } from '../support/served-vm.js';
import { u32s } from '../support/wire.js';

const MILLISECONDS = 1500;
const PAGES = 512;
const FIRST_PFN = 4096;
const LIST_GPA = 2 ** 23;
/** A list that grew with what is given and taken would be many times as long. */
const MAX_GROWTH_BYTES = 64 * 2 ** 20;

interface Stage {
  daemon: DaemonProcess;
  control: ControlClient;
  bystander: Bystander;
}

async function stage(t: Test): Promise<Stage> {
  const daemon = await DaemonProcess.start({
    config: `[[socket]]
path = "{folder}/vhost.sock"
name = "restless"
[[socket]]
path = "{folder}/other.sock"
name = "bystander"
`,
  });
  t.teardown(() => daemon.stop());
  const bystander = await Bystander.connect(join(daemon.folder, 'other.sock'));
  t.teardown(() => bystander.close());
  return { daemon, bystander, control: new ControlClient(join(daemon.folder, 'control.sock')) };
}

/** Lets the guest go on step by step, while the bystander works, and the daemon is looked at. */
async function forAWhile({ daemon, control, bystander }: Stage, step: () => void | Promise<void>) {
  const before = residentBytes(daemon.pid);
  const end = performance.now() + MILLISECONDS;
  const most = { rounds: 0, pendingBytes: 0, growthBytes: 0 };
  const watch = async (): Promise<void> => {
    while (performance.now() < end) {
      await bystander.works();
      const { balloon } = await control.show('restless');
      most.pendingBytes = Math.max(most.pendingBytes, balloon.pendingBytes);
      most.growthBytes = Math.max(most.growthBytes, residentBytes(daemon.pid) - before);
      most.rounds++;
      await sleep(20);
    }
  };
  const play = async (): Promise<void> => {
    while (performance.now() < end) {
      await step();
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await Promise.all([watch(), play()]);
  return most;
}

function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

inEachOrder('a guest that waits for its acks loses nothing', async (t) => {
  const host = await stage(t);
  const guest = await ModelGuest.start(host.daemon.socketPath, host.control, 'restless', {
    mustTellHost: true,
    memorySlots: true,
  });
  t.teardown(() => guest.close());
  const buffers = [{ first: 0, count: PAGES, stride: 1 }];
  let rounds = 0;
  const most = await forAWhile(host, async () => {
    await guest.perform({ kind: 'inflate', buffers });
    await guest.perform({ kind: 'deflate', buffers });
    if (rounds++ % 10 === 0) guest.check();
  });
  guest.check();
  await guest.perform({ kind: 'inflate', buffers });
  await guest.perform({ kind: 'settle' });
  t.comment(`${rounds} rounds`, most);
  t.ok(most.rounds > 0 && rounds > 0);
  t.ok(most.pendingBytes <= PAGES * PAGE_BYTES);
  t.ok(most.growthBytes < MAX_GROWTH_BYTES);
});

inEachOrder('a guest that waits for nothing', async (t) => {
  const host = await stage(t);
  const frontend = new Frontend({ socket: host.daemon.socketPath });
  t.teardown(() => frontend.close());
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend);
  // No two of them side by side: a list of what is to be done would be as long as it can be.
  const pages = pfns(FIRST_PFN, PAGES).map((pfn) => 2 * pfn - FIRST_PFN);
  frontend.ram.write(LIST_GPA, u32s(...pages));
  const rings = [driver.ring('inflate'), driver.ring('deflate')];
  let served = 0;
  const most = await forAWhile(host, () => {
    for (const ring of rings) served += again(ring);
  });
  for (const ring of rings) await ring.waitUsed(ring.outstanding);
  await driver.deflate(pages);
  for (const pfn of pages) frontend.ram.fillPage(pfn, 1);
  await sleep(100);
  t.ok(
    pages.every((pfn) => frontend.ram.pageHolds(pfn, 1)),
    'what it took back is its own',
  );
  t.comment(`${served} buffers`, most);
  t.ok(most.rounds > 0 && served > 0);
  t.ok(most.pendingBytes <= PAGES * PAGE_BYTES);
  t.ok(most.growthBytes < MAX_GROWTH_BYTES);
  t.equal((await host.control.show('restless')).balloon.pendingBytes, 0);
});

/** Fills the ring with the same buffer. Returns how many came back. */
function again(ring: GuestRing): number {
  const back = ring.collectUsed().length;
  while (ring.outstanding < ring.size) ring.add([{ gpa: LIST_GPA, len: 4 * PAGES }], { publish: false });
  ring.kick();
  return back;
}
