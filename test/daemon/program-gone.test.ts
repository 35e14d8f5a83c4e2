// The files of a daemon that runs are removed, as by a purge or between two versions: it answers as before, and its keeper
// waits for another.
import { cpSync, mkdirSync, renameSync, symlinkSync } from 'node:fs';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { BIN, DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { ModelGuest } from '../support/model-guest.js';

const ROOT = join(BIN, '../..');
const folder = join(t.testdir(), 'installed');

mkdirSync(join(folder, 'out'), { recursive: true });
for (const name of ['out/bin', 'out/page', 'package.json']) {
  cpSync(join(ROOT, name), join(folder, name), { recursive: true });
}
for (const name of ['node_modules', 'src']) symlinkSync(join(ROOT, name), join(folder, name));

const daemon = await DaemonProcess.start({
  supervise: true,
  metrics: true,
  program: join(folder, 'out/bin/balloond.js'),
  config: '[[socket]]\npath = "{folder}/vhost.sock"\nname = "vm"\n',
});
t.teardown(() => daemon.stop());
/** One that is asked for metrics on its control socket alone, and had no reason to load what they take. */
const other = await DaemonProcess.start({ program: join(folder, 'out/bin/balloond.js') });
t.teardown(() => other.stop());
const control = new ControlClient(daemon.controlPath);
const guest = await ModelGuest.start(daemon.socketPath, control, 'vm', {
  memorySlots: true,
  mustTellHost: true,
});
t.teardown(() => guest.close());
const give = (first: number): Promise<void> =>
  guest.perform({ kind: 'inflate', buffers: [{ first, count: 100, stride: 1 }] });
const said = (event: string): number => daemon.log.split(`"event":"${event}"`).length - 1;
await give(0);

void t.test('it answers as before', async (t) => {
  renameSync(folder, `${folder}-gone`);
  const metrics = await (await fetch(`${daemon.metricsUrl}/metrics`)).text();
  t.match(metrics, /^balloond_vms\{.*running.*\} 1$/m);
  t.match(metrics, /^process_cpu_seconds_total /m, 'those of the process are there');
  t.equal((await fetch(`${daemon.metricsUrl}/`)).status, 200);
  const [response] = (await once(get({ socketPath: other.controlPath, path: '/metrics' }), 'response')) as [
    IncomingMessage,
  ];
  const late = await text(response);
  t.equal(response.statusCode, 200);
  t.match(late, /^balloond_vms\{/m, 'those of VMs');
  t.match(late, /^# Metrics of the process are missing: .* after the next start of the daemon\.$/m);
  t.match(await control.reload(), {});
  t.equal((await control.list()).length, 1);
  await give(200);
  guest.check();
});

void t.test('its keeper waits, and says so once', async (t) => {
  process.kill(daemon.pid, 'SIGKILL');
  await eventually(
    () => said('program-gone') > 0,
    () => `the keeper says so: ${daemon.log}`,
  );
  const waits = give(400);
  const before = said('daemon-started');
  renameSync(`${folder}-gone`, folder);
  await eventually(
    () => said('daemon-started') > before,
    () => 'it is started again',
  );
  await waits;
  guest.check();
  t.equal(said('program-gone'), 1);
  t.notMatch(daemon.log, /Cannot find module/);
});
