// Somebody sets the host's time by hours, forth and back: nothing that is a duration, an age or a turn notices.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { VmReadings } from '../../src/governor/readings.js';
import { decodeVmRecord, momentOf } from '../../src/vm/record.js';
import { EventLog } from '../../src/ops/event-log.js';
import { fromWall, monotonicNow, msAgo, msSince, toBoot, toWall, wallNow } from '../../src/os/clock.js';
import { ServedVm } from '../support/served-vm.js';
import { ANY_VMM } from '../support/vmm-orders.js';
import { wallClock } from '../support/wall-clock.js';

const STEPS_HOURS = [2, -4, 0] as const;
const HOUR_MS = 3_600_000;

void t.test('a VM that is well stays so, and one that hangs is noticed', async (t) => {
  const step = wallClock(t);
  const { served, driver } = await ServedVm.running({
    frontend: { order: ANY_VMM },
    statsIntervalSeconds: 0.5,
  });
  await driver.waitStatsRequests(1);
  await driver.inflate([1000, 1001]);
  served.vm.setTarget({ balloonBytes: 2 ** 20 });
  for (const hours of STEPS_HOURS) {
    step(hours);
    const { verdict, stats } = served.view;
    t.equal(verdict, null, `${hours} h`);
    const age = stats?.ageSeconds ?? NaN;
    t.ok(age >= 0 && age < 1000, `${hours} h: statistics are ${age} s old`);
  }
  step(-4);
  driver.ring('stats').onCall = null;
  await served.until(({ verdict }) => verdict !== null, 'it is noticed');
  t.match(served.view.verdict, /^the guest sent no statistics for \d s,/);
  await served.close();
});

void t.test('the next daemon knows how old things are', async (t) => {
  const step = wallClock(t);
  const { served, driver } = await ServedVm.running({
    frontend: { order: ANY_VMM },
    statsIntervalSeconds: 0.1,
  });
  await driver.waitStatsRequests(2);
  const { stats, connectedAt, connectedBootMs } = decodeVmRecord(served.device.record());
  if (stats === null) throw new Error('no statistics are written down');
  for (const hours of STEPS_HOURS) {
    step(hours);
    for (const moment of [
      momentOf(stats.receivedBootMs, stats.receivedAt),
      momentOf(connectedBootMs, connectedAt),
    ]) {
      t.ok(msSince(moment) >= 0 && msSince(moment) < HOUR_MS, `${hours} h: ${msSince(moment)} ms`);
    }
  }
  await served.close();
});

void t.test('a record of a build that knew wall time alone', (t) => {
  const step = wallClock(t);
  const written = toWall(msAgo(5000));
  const age = (): number => msSince(momentOf(undefined, written));
  t.ok(age() >= 5000 && age() < HOUR_MS);
  step(-4);
  t.ok(age() < HOUR_MS, 'what has not come yet is now');
  t.ok(msSince(fromWall(wallNow())) >= 0);
  t.equal(toBoot(monotonicNow()) > toBoot(msAgo(10)), true);
  t.end();
});

void t.test('a guest stalls only while it says so', (t) => {
  const step = wallClock(t);
  const readings = new VmReadings(
    { usage: () => null, watch: () => null, unwatch: () => undefined },
    () => undefined,
  );
  const say = (stalls: number): number =>
    readings.stallPercent({
      ageSeconds: 0,
      receivedAt: monotonicNow(),
      values: new Map([['VIRTIO_BALLOON_S_ALLOC_STALL', stalls]]),
    });
  t.equal(say(1), 0);
  t.ok(say(2) > 0, 'it had to wait');
  step(-4);
  t.equal(say(2), 0, 'and has not since');
  step(2);
  t.ok(say(3) > 0);
  t.equal(say(3), 0);
  readings.close();
  t.end();
});

void t.test('events are counted against the time that passed', async (t) => {
  const step = wallClock(t);
  const said: string[] = [];
  const add = (_: object, message: string): void => void said.push(message);
  const log = new EventLog({ debug: add, info: add, warn: add, error: add });
  for (let n = 0; n < 20; n++) log.emit('vm-connected', 'first');
  t.equal(said.length, 10, 'as many at once');
  step(2);
  for (let n = 0; n < 20; n++) log.emit('vm-connected', 'at once');
  t.ok(said.length < 20, 'hours that did not pass give no others');
  step(-4);
  const deadline = monotonicNow();
  while (!said.includes('later')) {
    if (msSince(deadline) > 30_000) throw new Error('events are left out for hours');
    await sleep(50);
    log.emit('vm-connected', 'later');
  }
});
