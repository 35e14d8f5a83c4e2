import { setTimeout as sleep } from 'node:timers/promises';
import { Frontend } from '../test/support/frontend.js';
import { BalloonDriver } from '../test/support/balloon-driver.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { ANY_VMM } from '../test/support/vmm-orders.js';
import { cpuSeconds, residentMib } from './process-cost.js';
import { median, report } from './table.js';

/** What an idle daemon with running VMs takes, and how long balloonctl takes to answer beside an empty Node. */
const VMS = 10;
const IDLE_SECONDS = 60;
/** The garbage of starting up is collected by then. */
const SETTLE_SECONDS = 30;
const CALLS = 15;

async function millis(call: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let n = 0; n < CALLS; n++) {
    const start = process.hrtime.bigint();
    await call();
    times.push(Number(process.hrtime.bigint() - start) / 1e6);
  }
  return median(times);
}

const daemon = await DaemonProcess.start();
const frontends = Array.from(
  { length: VMS },
  () => new Frontend({ order: ANY_VMM, socket: daemon.socketPath }),
);
try {
  for (const frontend of frontends) {
    await frontend.connect();
    await BalloonDriver.start(frontend);
  }
  await sleep(SETTLE_SECONDS * 1000);
  const before = cpuSeconds(daemon.pid);
  await sleep(IDLE_SECONDS * 1000);
  const cpuPercent = ((cpuSeconds(daemon.pid) - before) / IDLE_SECONDS) * 100;
  report('idle', [
    {
      VMs: VMS,
      'CPU % of a core': cpuPercent.toFixed(3),
      'resident MiB': residentMib(daemon.pid).toFixed(0),
      'balloonctl list ms': (await millis(() => daemon.ok('list'))).toFixed(0),
      'balloonctl show ms': (await millis(() => daemon.ok('show', `pid-${process.pid}`))).toFixed(0),
    },
  ]);
} finally {
  for (const frontend of frontends) frontend.close();
  await daemon.stop();
}
