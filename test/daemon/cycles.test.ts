// VMs come and go for as long as the daemon lives: what it holds for one is gone with it.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import t from 'tap';
import { BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { pfns } from '../support/served-vm.js';
import { PATIENCE_MS } from '../support/deadline.js';
import { setTimeout as sleep } from 'node:timers/promises';
import { ANY_VMM } from '../support/vmm-orders.js';

const CYCLES = 1000;
/** Code is compiled, buffers and heap have grown to what they are by then. */
const WARM_CYCLES = 400;
const RAM_BYTES = 4 * 2 ** 20;
const FIRST_PFN = 512;
const PAGES = 64;
/** Cycles between two looks at the heap. */
const SAMPLE = 20;
/**
 * The collector frees when it likes, so the least that was in use late is compared with the most that was in use
 * early. A leak of 40 KiB a cycle would be above that.
 */
const MOST_GROWTH_BYTES = 24 * 2 ** 20;
const SETTLE_MS = 1000;

interface Held {
  fds: number;
  memfds: number;
  eventfds: number;
  /** Of files: anonymous ones are the heap's. */
  mappings: number;
}

function held(pid: number): Held {
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return '';
    }
  });
  const maps = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n');
  return {
    fds: links.length,
    memfds: links.filter((link) => link.startsWith('/memfd:')).length,
    eventfds: links.filter((link) => link.includes('[eventfd]')).length,
    mappings: maps.filter((line) => line.includes('/')).length,
  };
}

function anonymousBytes(pid: number): number {
  const text = readFileSync(`/proc/${pid}/status`, 'latin1');
  return 1024 * Number(/^RssAnon:\s+(\d+) kB/m.exec(text)?.[1]);
}

/** One VM from its connection to its end, which is one of those that there are. */
async function cycle(socket: string, n: number): Promise<void> {
  const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  const frontend = new Frontend({ socket, ram, order: ANY_VMM });
  await frontend.connect();
  if (n % 5 !== 4) {
    const driver = await BalloonDriver.start(frontend, { areaGpa: 0x10000 });
    await driver.inflate(pfns(FIRST_PFN, PAGES));
    if (n % 2 === 0) await driver.deflate(pfns(FIRST_PFN, PAGES));
    if (n % 3 === 0) await driver.reset();
  }
  frontend.close();
}

/** Returns how much private memory was in use in the latter half. */
async function cycles(daemon: DaemonProcess, count: number): Promise<number[]> {
  const bytes: number[] = [];
  for (let n = 0; n < count; n++) {
    await cycle(daemon.socketPath, n);
    if (n % SAMPLE === 0 && n >= count / 2) bytes.push(anonymousBytes(daemon.pid));
  }
  return bytes;
}

void t.test('connections that come and go leave nothing behind', async (t) => {
  const daemon = await DaemonProcess.start();
  t.teardown(() => daemon.stop());
  const empty = held(daemon.pid);
  /** What the last VM held is let go of soon. */
  const quiet = async (wanted: Held): Promise<Held> => {
    for (const end = performance.now() + PATIENCE_MS; ; await sleep(20)) {
      const now = held(daemon.pid);
      if (performance.now() > end || JSON.stringify(now) === JSON.stringify(wanted)) return now;
    }
  };
  const early = Math.max(...(await cycles(daemon, WARM_CYCLES)));
  await sleep(SETTLE_MS);
  const warm = held(daemon.pid);
  // What is opened once for all, and not for each of hundreds.
  t.ok(warm.fds <= empty.fds + 5, `${warm.fds} fds after the warm-up, ${empty.fds} before the first VM`);
  t.equal(warm.memfds, empty.memfds, 'no memory file is left');
  const late = Math.min(...(await cycles(daemon, CYCLES - WARM_CYCLES)));
  t.same(await quiet(warm), warm, 'what is open and mapped after all of them');
  t.ok(late - early < MOST_GROWTH_BYTES, `private memory grew from ${early} to ${late} bytes`);
  t.same(await daemon.list(), [], 'no VM is left');
});
