import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import { ensureLab } from '../test/support/lab/lab.js';
import { BalloonContender } from './contenders.js';
import { BUILTIN, limits, measure, type Starter } from './inflate.js';
import { reportInflate } from './inflate-figures.js';
import { inflatePlot } from './inflate-plot.js';
import { QtestBalloon } from './qtest-balloon.js';
import { median, percentile } from './table.js';

/** QEMU's built-in balloon, balloond, and the limits of the host, giving up the same memory. */
const { values: wanted } = parseArgs({
  options: {
    backing: { type: 'string', default: '' },
    pattern: { type: 'string', default: '' },
    plot: { type: 'boolean', default: false },
    'filled-here': { type: 'boolean', default: false },
  },
});
const lab = await ensureLab();
const daemon = await DaemonProcess.start();
const ACCESSES = 500;
const accesses: number[] = [];
const builtin: Starter = async (machine) => {
  const balloon = new QtestBalloon(await machine('-device', 'virtio-balloon-device'));
  for (let n = 0; n < ACCESSES; n++) accesses.push(balloon.readStatus());
  return new BalloonContender(BUILTIN, balloon, null);
};
const balloond: Starter = async (machine) =>
  new BalloonContender(
    'balloond',
    new QtestBalloon(
      await machine(
        ...['-chardev', `socket,id=balloon,path=${daemon.socketPath}`],
        '-device',
        'vhost-user-test-device,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=256,config_size=16',
      ),
    ),
    daemon,
  );
try {
  const filledHere = wanted['filled-here'];
  const outcomes = await measure(lab, [builtin, balloond, ...limits], { ...wanted, filledHere });
  const figures = reportInflate(filledHere ? 'qemu-builtin-filled-here' : 'qemu-builtin', outcomes, [
    {
      pattern: 'one register access',
      contender: 'QEMU over qtest',
      'ack p50 µs': median(accesses).toFixed(1),
      'p99 µs': percentile(accesses, 99).toFixed(1),
    },
  ]);
  if (wanted.plot) writeFileSync('docs/development/performance-inflate.svg', inflatePlot(figures));
} finally {
  await daemon.stop();
}
