// A running VM goes from an older build to this one, back, and to this one again, with what its operator ordered:
//   node out/test/daemon/older-build.check.js OTHER/out/bin/balloond.js
import { join } from 'node:path';
import t from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { BIN, DaemonProcess } from '../support/daemon.js';
import { ModelGuest } from '../support/model-guest.js';
import { Installation } from '../support/next-build.js';

t.setTimeout(0);

const MIB = 2 ** 20;
const [older = ''] = process.argv.slice(2);
const newer = join(BIN, 'balloond.js');
const installed = new Installation(t.testdir(), older);
const daemon = await DaemonProcess.start({
  supervise: true,
  program: installed.program,
  config: '[[socket]]\npath = "{folder}/web.sock"\nname = "web"\n',
});
t.teardown(() => daemon.stop());
const control = new ControlClient(daemon.controlPath);

async function replace(build: string): Promise<void> {
  installed.install(build);
  await daemon.crash();
}

void t.test('up, down and up again', async (t) => {
  const options = { memorySlots: true, mustTellHost: true };
  const guest = await ModelGuest.start(join(daemon.folder, 'web.sock'), control, 'web', options);
  let first = 0;
  const work = async (): Promise<void> => {
    await guest.perform({ kind: 'inflate', buffers: [{ first, count: 100, stride: 1 }] });
    await guest.perform({ kind: 'deflate', buffers: [{ first: first + 20, count: 20, stride: 1 }] });
    guest.check();
    first += 100;
  };
  await work();
  await control.setTarget('web', { balloonBytes: MIB });
  await control.inhibit('web', 'old');
  await replace(newer);
  t.match(await control.show('web'), { inhibited: 'old', balloon: { targetBytes: MIB } });
  t.match((await control.show('web')).orders, [{ order: 'inhibit', since: null }, { order: 'policy' }]);
  await work();
  await control.inhibit('web', 'new');
  await control.setTarget('web', { balloonBytes: 2 * MIB });
  await replace(older);
  t.match(await control.show('web'), { inhibited: 'new', balloon: { targetBytes: 2 * MIB } });
  t.match(await control.show('web'), { policy: { mode: 'manual' } });
  await work();
  await control.allow('web');
  await control.changePolicy({ paused: false, vm: 'web' });
  await replace(newer);
  t.match(await control.show('web'), { inhibited: null, orders: [], policy: { mode: 'observe' } });
  await control.inhibit('web', 'newer');
  await work();
  await replace(newer);
  t.match(await control.show('web'), { inhibited: 'newer', orders: [{ order: 'inhibit', by: 'operator' }] });
  await control.allow('web');
  await control.changePolicy({ paused: true });
  const [pause] = (await control.policy()).orders;
  await replace(older);
  t.match(
    await control.show('web'),
    { policy: { mode: 'manual' } },
    'a build without such an order obeys it',
  );
  await replace(newer);
  t.match(await control.policy(), { paused: true, orders: [pause] });
  t.match(await control.show('web'), { orders: [pause] });
  await control.changePolicy({ paused: false });
  t.match(await control.show('web'), { orders: [], policy: { mode: 'observe' } });
  await work();
  await guest.perform({ kind: 'settle' });
  guest.check();
  await guest.end(() => Promise.resolve());
  t.notMatch(daemon.log, /resume-failed|vm-dropped|frontend-error|driver-error|hand-over-failed/);
});
