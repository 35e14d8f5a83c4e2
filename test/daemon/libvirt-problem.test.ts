import t from 'tap';
import { eventually } from '../support/deadline.js';
import { DaemonProcess } from '../support/daemon.js';

void t.test(
  'a bus that is not there is said by adopt, list and doctor for as long as that is so',
  async (t) => {
    const daemon = await DaemonProcess.start({ config: '[libvirt]\nbus = "{folder}/bus"\n' });
    t.teardown(() => daemon.stop());
    await eventually(
      () => daemon.log.includes('libvirt-failed'),
      () => 'it is told',
    );
    const says = /cannot look at the domains of libvirt, since there is no bus \(bus .*bus\): start the bus/;
    t.match(await daemon.ok('list'), says);
    t.match(await daemon.ok('adopt'), says);
    t.match(await daemon.ctl('adopt', '--json'), { stdout: /^\[\]\s*$/, stderr: says });
    const { stdout } = await daemon.ctl('doctor', '--json');
    const found = (JSON.parse(stdout) as { check: string; level: string; mend: string }[]).find(
      ({ check }) => check === 'libvirt',
    );
    t.match(found, { level: 'mend', mend: /^start the bus/ });
  },
);
