// A daemon is replaced by one of a newer build, whose records are of the next version, and by the older one again. No
// VM notices the way up. On the way down the older one leaves alone what it cannot know, and serves all others.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { BIN, DaemonProcess } from '../support/daemon.js';
import { ModelGuest } from '../support/model-guest.js';
import { buildNext, Installation } from '../support/next-build.js';

const older = join(BIN, 'balloond.js');
const newer = await buildNext();
const installed = new Installation(t.testdir(), older);

const daemon = await DaemonProcess.start({
  supervise: true,
  program: installed.program,
  config: ['upgraded', 'other']
    .map((name) => `[[socket]]\npath = "{folder}/${name}.sock"\nname = "${name}"\n`)
    .join(''),
});
t.teardown(() => daemon.stop());
const control = new ControlClient(daemon.controlPath);

function start(name: string): Promise<ModelGuest> {
  const options = { memorySlots: true, mustTellHost: true };
  return ModelGuest.start(join(daemon.folder, `${name}.sock`), control, name, options);
}

/** Ends the daemon, and returns what the next one says of VMs. */
async function replace(build: string): Promise<string> {
  installed.install(build);
  const { length } = daemon.log;
  await daemon.crash();
  return daemon.log.slice(length);
}

async function work(guest: ModelGuest, first: number): Promise<void> {
  await guest.perform({ kind: 'inflate', buffers: [{ first, count: 200, stride: 1 }] });
  await guest.perform({ kind: 'deflate', buffers: [{ first: first + 50, count: 50, stride: 1 }] });
  guest.check();
}

const events = (log: string, event: string): Record<string, unknown>[] =>
  log
    .split('\n')
    .filter((line) => line.includes(`"event":"${event}"`))
    .map((line) => JSON.parse(line) as Record<string, unknown>);

const names = async (): Promise<string[]> => (await control.list()).map(({ name }) => name).sort();

void t.test('up, down and up again', async (t) => {
  const upgraded = await start('upgraded');
  await work(upgraded, 0);
  await control.setTarget('upgraded', { balloonBytes: 2 ** 20 });
  // What is discarded behind the ack goes on by itself.
  let before = await control.show('upgraded');
  while (before.balloon.pendingBytes > 0) {
    await sleep(5);
    before = await control.show('upgraded');
  }

  const up = await replace(newer);
  t.match(events(up, 'vm-resumed'), [{ vm: 'upgraded' }]);
  t.same((await control.show('upgraded')).balloon, before.balloon);
  await work(upgraded, 300);

  const down = await replace(older);
  t.match(events(down, 'resume-failed'), [
    { vm: 'upgraded', message: /newer balloond.*start the newer balloond again.*do not reboot the VM/ },
  ]);
  t.same(await names(), []);
  const other = await start('other');
  await work(other, 0);
  const again = await replace(older);
  t.match(events(again, 'resume-failed'), [{ vm: 'upgraded' }], 'it is still kept');
  t.match(events(again, 'vm-resumed'), [{ vm: 'other' }]);
  t.same(await names(), ['other']);
  await work(other, 300);

  const back = await replace(newer);
  t.same(
    events(back, 'vm-resumed')
      .map(({ vm }) => vm)
      .sort(),
    ['other', 'upgraded'],
  );
  t.same(events(back, 'resume-failed'), []);
  for (const guest of [upgraded, other]) {
    await work(guest, 600);
    await guest.perform({ kind: 'settle' });
    guest.check();
  }
  t.equal((await control.show('upgraded')).balloon.targetBytes, 2 ** 20);
  const remembered = await control.events();
  t.equal(
    remembered.filter(({ event }) => event === 'daemon-started').length,
    5,
    'each of them is remembered',
  );
  t.equal(new Set(remembered.map(({ epoch }) => epoch)).size, 1);
  for (const guest of [upgraded, other]) await guest.end(() => Promise.resolve());
  t.notMatch(daemon.log, /vm-dropped|frontend-error|driver-error|hand-over-failed/);
});
