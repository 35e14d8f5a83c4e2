/**
 * A gold VM, served over vhost-user or adopted over QMP, grows on a host that is at its reserve, and a bronze VM of another kind gives: the
 * seconds from the moment at which the guest begins to grow until the host has its reserve again.
 */
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import { MixedFleet, SHIFTS } from '../test/support/mixed-fleet.js';
import { report, type Row } from './table.js';

const { rounds } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } }).values;
const rows: Row[] = [];
for (let round = 1; round <= Number(rounds); round++) {
  const ends: (() => unknown)[] = [];
  const start = async (config: string): Promise<DaemonProcess> => {
    const daemon = await DaemonProcess.start({ config });
    ends.unshift(() => daemon.stop());
    return daemon;
  };
  try {
    const fleet = await MixedFleet.boot(start, (end) => ends.unshift(end));
    for (const shift of SHIFTS) {
      const { gold, bronze, grownMib, before, after, seconds, took } = await fleet.shift(shift);
      rows.push({
        round,
        'memory of': bronze,
        'goes to': gold,
        'grown MiB': grownMib,
        'given MiB': ((before[bronze].guestTotal - after[bronze].guestTotal) / 2 ** 20).toFixed(0),
        steps: took.get(bronze) ?? 0,
        seconds: seconds.toFixed(1),
      });
    }
  } finally {
    for (const end of ends) await end();
  }
}
report('mixed-fleet', rows);
