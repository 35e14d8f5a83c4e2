// A guest of a terabyte costs what it gives up, not what it is.
import { readFileSync } from 'node:fs';
import { BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';

const TIB = 2 ** 40;
const KIB = 1024;
const MIB = 2 ** 20;

/** What is in memory of the process, or of its mappings of that name. */
function residentBytes(pid: number, name = ''): number {
  let resident = 0;
  let counts = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    if (/^[\da-f]+-[\da-f]+ /.test(line)) counts = line.includes(name);
    else if (counts && line.startsWith('Rss:')) resident += Number(/\d+/.exec(line)?.[0]) * KIB;
  }
  return resident;
}

inEachOrder('1 TiB', async (t) => {
  const daemon = await DaemonProcess.start();
  const frontend = new Frontend({
    socket: daemon.socketPath,
    ram: new GuestRam([{ gpa: 0, lenBytes: TIB }]),
  });
  t.teardown(async () => {
    frontend.close();
    await daemon.stop();
  });
  const before = residentBytes(daemon.pid);
  const ledger = (): number => residentBytes(daemon.pid, 'balloond-ledger');
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend);
  const name = `pid-${process.pid}`;
  const running = await daemon.until(name, ({ state }) => state === 'running', 'it runs');
  t.equal(running.ramBytes, TIB);
  t.equal(ledger(), 0, 'nothing in the balloon, nothing in the ledger');

  // A page in each GiB and a whole GiB, in buffers as Linux sends them.
  const scattered = Array.from({ length: 1023 }, (_, n) => (n + 1) * 2 ** 18 + 7 * n);
  const whole = Array.from({ length: 2 ** 18 }, (_, n) => 512 * 2 ** 18 + n);
  await driver.inflate(scattered);
  await driver.inflate(whole);
  const { balloon } = await daemon.until(name, (vm) => vm.balloon.pendingBytes === 0, 'all is discarded');
  t.equal(balloon.inflatedBytesTotal, (scattered.length + whole.length) * PAGE_BYTES);
  // Each scattered page has a page of the ledger to itself, twice: ballooned and pending.
  const inflated = ledger();
  t.ok(inflated <= 2 * 1023 * PAGE_BYTES + 128 * KIB, `${inflated / KIB} KiB of ledger`);
  await driver.deflate(scattered.slice(0, 100));
  await driver.reset();
  await BalloonDriver.start(frontend);
  t.ok(ledger() <= inflated, 'starting over touches nothing more');
  const grown = residentBytes(daemon.pid) - before;
  t.ok(grown < 64 * MIB, `${grown / MIB} MiB in all`);
});
