import t from 'tap';
import { DaemonProcess } from '../support/daemon.js';

void t.test('metrics that cannot be served are said for as long as that is so', async (t) => {
  const daemon = await DaemonProcess.start({
    // An address for documentation (RFC 5737), which no host has.
    config: 'metrics = "192.0.2.1:9797"\n[[socket]]\npath = "{folder}/vm.sock"\n',
  });
  t.teardown(() => daemon.stop());
  const says = /metrics cannot be served on TCP: .*EADDRNOTAVAIL.*: choose an address/;
  t.match(await daemon.ok('list'), says);
  const { stdout } = await daemon.ctl('doctor', '--json');
  const found = (JSON.parse(stdout) as { check: string; level: string; mend: string }[]).find(
    ({ check }) => check === 'metrics',
  );
  t.match(found, { level: 'mend', mend: /^choose an address/ });
});
