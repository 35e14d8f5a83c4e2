// A VMM with a guest, to be run in the host VM by itself: `vmm.js SOCKET -name guest=NAME [private|stubborn]`. It connects,
// starts its driver, tells the service manager that it is ready (of systemd-run, Type=notify) and then follows its
// target. `private`: its memory is said to lie where this process maps a file privately, and is to be refused.
// `stubborn`: it does not follow, and needs memory anew all the time.
import { readFileSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { notify } from '../../../src/ops/notify.js';
import { closeFd } from '../../../src/os/fd.js';
import { createMemfd } from '../../../src/os/memfd.js';
import { BalloonDriver, BOTH_SPACE, LINUX_FEATURES } from '../balloon-driver.js';
import { Frontend, Nack } from '../frontend.js';
import { GuestRam, type RegionOptions } from '../guest-ram.js';
import { ANY_VMM } from '../vmm-orders.js';

const RAM_BYTES = 64 * 2 ** 20;
/** Emulated machines are slow, and a daemon that is started again answers late on a busy one. */
const TIMEOUT_MS = 600_000;
const PART = Buffer.alloc(2 ** 20, 1);
const CHURN_MS = 100;

const [, , socket = '', , , memory] = process.argv;
const isPrivate = memory === 'private';
const region: RegionOptions = { gpa: 0, lenBytes: RAM_BYTES };
const ram = new GuestRam([isPrivate ? { ...region, userAddress: privateAddress() } : region]);
// The guest has touched all its memory: it is charged to this process.
for (const { file } of ram.regions)
  for (let at = 0; at < RAM_BYTES; at += PART.length) writeSync(file.fd, PART, 0, PART.length, at);
const frontend = new Frontend({ socket, ram, timeoutMs: TIMEOUT_MS, order: ANY_VMM, ...BOTH_SPACE });
await frontend.connect();
try {
  const driver = await BalloonDriver.start(frontend, { features: LINUX_FEATURES, timeoutMs: TIMEOUT_MS });
  if (memory === 'stubborn') setInterval(churn, CHURN_MS).unref();
  else {
    driver.followTarget();
    void failAloud(driver);
  }
} catch (error) {
  if (!isPrivate || !(error instanceof Nack)) throw error;
}
notify({ READY: 1 });
await frontend.closed;

/** Takes memory and gives it back, without waiting for a collector of garbage that may come too late under memory.high. */
function churn(): void {
  const fd = createMemfd('churn', PART.length);
  writeSync(fd, PART);
  closeFd(fd);
}

/** A driver that cannot follow its target any more ends the VMM, with the reason in its journal. */
async function failAloud(driver: BalloonDriver): Promise<never> {
  for (;;) {
    await driver.idle();
    await sleep(1000, undefined, { ref: false });
  }
}

function privateAddress(): bigint {
  const mapping = /^([0-9a-f]+)-\S+ ...p \S+ \S+ [1-9]/m.exec(readFileSync('/proc/self/maps', 'latin1'));
  if (mapping === null) throw new Error('this process maps no file privately');
  return BigInt(`0x${mapping[1] ?? ''}`);
}
