/**
 * A gold VM of one kind, served over vhost-user or adopted over QMP, grows on a host that is at its reserve, and a bronze VM of the other
 * kind gives: the seconds from the moment at which the guest begins to grow until the host has its reserve again.
 */
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import type { Guest } from '../test/support/lab/guest.js';
import { FLEET_CONFIG, KINDS, MixedFleet } from '../test/support/mixed-fleet.js';
import { report, type Row } from './table.js';

const { rounds } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } }).values;
const rows: Row[] = [];
for (let round = 1; round <= Number(rounds); round++) {
  const daemon = await DaemonProcess.start({ config: FLEET_CONFIG });
  const guests: Guest[] = [];
  try {
    const fleet = await MixedFleet.boot(daemon, (guest) => guests.push(guest));
    for (const kind of KINDS) {
      const { gold, bronze, grownMib, before, after, seconds, took } = await fleet.shift(kind);
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
    await Promise.all(guests.map((guest) => guest.kill()));
    await daemon.stop();
  }
}
report('mixed-fleet', rows);
