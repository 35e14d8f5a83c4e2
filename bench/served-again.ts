import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { BalloonDriver } from '../test/support/balloon-driver.js';
import { BIN, DaemonProcess } from '../test/support/daemon.js';
import { Frontend } from '../test/support/frontend.js';
import { GuestRam } from '../test/support/guest-ram.js';
import { ANY_VMM } from '../test/support/vmm-orders.js';
import { median, percentile, report } from './table.js';

/**
 * How long a guest waits when its daemon is killed: from SIGKILL to the ack of a buffer that the guest offered then. With
 * `--before DIR`, a clone of an earlier version that was built, both builds take turns.
 */
const { values } = parseArgs({
  options: { before: { type: 'string' }, kills: { type: 'string', default: '40' } },
});
const RAM_BYTES = 64 * 2 ** 20;
const TIMEOUT_MS = 60_000;

interface Build {
  readonly name: string;
  readonly daemon: DaemonProcess;
  readonly driver: BalloonDriver;
  readonly tookMs: number[];
}

async function start(name: string, program: string): Promise<Build> {
  const daemon = await DaemonProcess.start({ supervise: true, program });
  const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  const frontend = new Frontend({ order: ANY_VMM, socket: daemon.socketPath, ram, timeoutMs: TIMEOUT_MS });
  await frontend.connect();
  return {
    name,
    daemon,
    driver: await BalloonDriver.start(frontend, { timeoutMs: TIMEOUT_MS }),
    tookMs: [],
  };
}

const builds = [await start('this build', join(BIN, 'balloond.js'))];
if (values.before !== undefined) {
  builds.unshift(await start('the build before', join(values.before, 'out/bin/balloond.js')));
}
/** Daemons that are killed have served for a while: the first ones here, long enough to leave the next what they compiled. */
const SERVED_MS = 3000;
const WARM_UP = 3;
await pause(SERVED_MS);
for (let n = -WARM_UP; n < Number(values.kills); n++) {
  for (const { daemon, driver, tookMs } of builds) {
    const page = 4096 + (n + WARM_UP);
    const back = daemon.crash();
    const from = performance.now();
    await driver.inflate([page]);
    if (n >= 0) tookMs.push(performance.now() - from);
    await back;
    await driver.deflate([page]);
  }
}
const [first] = builds.map(({ tookMs }) => median(tookMs));
report(
  'served-again',
  builds.map(({ name, tookMs }) => ({
    build: name,
    kills: tookMs.length,
    'ms p50': median(tookMs).toFixed(0),
    p90: percentile(tookMs, 90).toFixed(0),
    max: percentile(tookMs, 100).toFixed(0),
    'p50 to the first row': (median(tookMs) / (first ?? NaN)).toFixed(2),
  })),
);
for (const { daemon } of builds) await daemon.stop();
process.exit();
