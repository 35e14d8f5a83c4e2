import { setTimeout as sleep } from 'node:timers/promises';
import { BalloonDriver } from '../test/support/balloon-driver.js';
import { Frontend } from '../test/support/frontend.js';
import { GuestRam } from '../test/support/guest-ram.js';

/**
 * A process that plays VMs for its parent (an IPC channel), because one process has not enough fds for a thousand. It
 * starts `count` VMs of `mib` MiB to give up, says `ready`, and then does what it is told:
 * `inflate`: each gives up all of it, once; `churn`: each gives up and takes back, scattered, until the process ends.
 */
const [socketPath = '', count = '1', mib = '16', pattern = 'sequential'] = process.argv.slice(2);
const FIRST_PFN = 1024;
const PAGES = Number(mib) * 256;
const CONNECTING_AT_ONCE = 8;
const CHUNK = new Uint8Array(2 ** 20).fill(0xa5);

interface Vm {
  frontend: Frontend;
  driver: BalloonDriver;
}

async function startVm(): Promise<Vm> {
  const ram = new GuestRam([{ gpa: 0, lenBytes: (FIRST_PFN + PAGES) * 4096 }]);
  const frontend = new Frontend({ socket: socketPath, ram, timeoutMs: 120_000 });
  await frontend.connect();
  return { frontend, driver: await BalloonDriver.start(frontend, { areaGpa: 0x1000, timeoutMs: 120_000 }) };
}

function populate({ frontend }: Vm): void {
  for (let n = 0; n < Number(mib); n++) frontend.ram.write(FIRST_PFN * 4096 + n * 2 ** 20, CHUNK);
}

/** 40503 is odd, so this is each page once. */
const page = (n: number): number =>
  FIRST_PFN + (pattern === 'sequential' ? n % PAGES : Math.imul(n, 40503) & (PAGES - 1));

async function inflate({ driver }: Vm): Promise<void> {
  for (let at = 0; at < PAGES; at += 256) {
    await driver.tellPfns(
      'inflate',
      Array.from({ length: 256 }, (_, n) => page(at + n)),
    );
  }
}

async function churn(vm: Vm): Promise<never> {
  for (;;) {
    populate(vm);
    await inflate(vm);
    for (let at = 0; at < PAGES; at += 256) {
      await vm.driver.tellPfns(
        'deflate',
        Array.from({ length: 256 }, (_, n) => page(at + n)),
      );
    }
  }
}

const vms: Vm[] = [];
while (vms.length < Number(count)) {
  const missing = Math.min(CONNECTING_AT_ONCE, Number(count) - vms.length);
  vms.push(...(await Promise.all(Array.from({ length: missing }, startVm))));
}
process.on('disconnect', () => process.exit());
process.on('message', (order) => {
  if (order === 'populate') vms.forEach(populate);
  if (order === 'inflate') void Promise.all(vms.map(inflate)).then(() => process.send?.('inflated'));
  if (order === 'churn') void Promise.all(vms.map(churn));
  if (order === 'populate') process.send?.('populated');
});
await sleep(0);
process.send?.('ready');
