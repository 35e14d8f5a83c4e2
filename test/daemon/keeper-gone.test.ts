// A keeper is killed and its daemon goes on: nobody holds the VMs from then on, and all who ask are told so.
import t from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { ModelGuest } from '../support/model-guest.js';

void t.test('a daemon without its keeper says that nobody holds its VMs', async (t) => {
  const daemon = await DaemonProcess.start({
    supervise: true,
    config: '[[socket]]\npath = "{folder}/vhost.sock"\nname = "vm"\n',
  });
  const control = new ControlClient(daemon.controlPath);
  const guest = await ModelGuest.start(daemon.socketPath, control, 'vm', {
    memorySlots: true,
    mustTellHost: true,
  });
  const { pid } = daemon;
  t.teardown(async () => {
    guest.close();
    await daemon.stop();
  });
  t.match(await control.daemon(), { holder: 'keeper', holderProblem: null });
  t.match((await daemon.ctl('doctor')).stdout, /ok +daemon: holder: keeper holds the VMs/);

  daemon.child.kill('SIGKILL');
  await eventually(
    () => daemon.log.includes('"event":"not-held"'),
    () => `the daemon says so by itself: ${daemon.log}`,
  );
  t.match(await control.daemon(), { holder: null, heldOver: 'nothing', holderProblem: /keeper .*is gone/ });
  t.match((await daemon.ctl('doctor')).stdout, /mend +daemon: holder: the keeper .* is gone/);
  t.match((await daemon.ctl('list')).stdout, /nobody holds the VMs/);
  await guest.perform({ kind: 'inflate', buffers: [{ first: 0, count: 100, stride: 1 }] });
  guest.check();

  process.kill(pid, 'SIGTERM');
  await eventually(
    () => daemon.log.includes('"event":"daemon-stopping"'),
    () => `it ends: ${daemon.log}`,
  );
  t.match(daemon.log, /SIGTERM; 1 VM without a balloon from now on must not be rebooted/);
  t.equal(daemon.log.split('"event":"not-held"').length, 2, 'said once');
});
