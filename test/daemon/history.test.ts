// The last hour of VMs, which the page draws, outlives a daemon that is killed.
import t from 'tap';
import type { LiveHistory } from '../../protocol/control/live.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { ANY_VMM } from '../support/vmm-orders.js';

void t.test('the hour before a daemon that was killed is told by the next one', async (t) => {
  const daemon = await DaemonProcess.start({ metrics: true, supervise: true });
  t.teardown(() => daemon.stop());
  const frontend = new Frontend({
    socket: daemon.socketPath,
    order: ANY_VMM,
    ram: new GuestRam([{ gpa: 0, lenBytes: 64 * 2 ** 20 }]),
  });
  t.teardown(() => frontend.close());
  await frontend.connect();
  await BalloonDriver.start(frontend);
  const vm = `pid-${process.pid}`;
  const ask = async (query: string): Promise<LiveHistory> =>
    (await (await fetch(`${daemon.metricsUrl}/history${query}`)).json()) as LiveHistory;
  // A page that comes has a sample taken.
  const page = new AbortController();
  await fetch(`${daemon.metricsUrl}/live`, { signal: page.signal });
  const before = await ask('');
  t.equal(before.times.length, 1);
  page.abort();
  const first = daemon.metricsUrl;
  await daemon.crash();
  t.not(daemon.metricsUrl, first, 'the next daemon serves it');
  const after = await ask('');
  t.same(after.times.slice(0, 1), before.times);
  t.same(after.series['host total']?.[0], before.series['host total']?.[0]);
  t.match(Object.keys((await ask(`?vm=${vm}`)).series), [`allocated ${vm}`]);
});
