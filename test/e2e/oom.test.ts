// A guest that runs out of memory takes it out of its balloon, and Linux does not fill the balloon again by itself.
import t from 'tap';
import { eventually } from '../support/deadline.js';
import { boot, MIB, startDaemon } from '../support/e2e.js';

void t.test(
  'memory that a guest takes out of its balloon is told of, and asked for again by the same order',
  async (t) => {
    const daemon = await startDaemon(t);
    const guest = await boot(t, daemon, 'greedy');
    const order = ['set', 'greedy', '--balloon', '300M', '--wait'];
    await daemon.ok(...order);
    await guest.hold(240, 1);
    const { balloon } = await daemon.until(
      'greedy',
      (vm) => vm.diagnosis?.code === 'took-back',
      'its verdict',
    );
    t.equal(balloon.targetBytes, 300 * MIB);
    t.ok(balloon.actualBytes < 300 * MIB);
    const told = async () => (await daemon.events()).filter(({ fields }) => fields['code'] === 'took-back');
    await eventually(
      async () => (await told()).length > 0,
      () => 'an event says so',
    );
    t.match(await told(), [{ event: 'verdict', message: /ran out of memory.*of 300 MiB: set a balloon/ }]);
    t.match((await daemon.ctl('show', 'greedy')).stdout, /Verdict +the guest ran out of memory and took/);
    t.equal(await guest.verify(), 0);
    await guest.drop();
    await daemon.ok(...order);
    t.equal((await daemon.show('greedy')).diagnosis, null);
    // A driver that leaves takes all of its memory back, too, and nothing is wrong with that.
    await guest.sh('rmmod virtio_balloon');
    await daemon.until('greedy', ({ state }) => state === 'stopped', 'its driver left');
    t.equal((await told()).length, 1, 'one event in all');
  },
);

void t.test('a guest that cannot give what is asked has a verdict, and an event that says it', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'full');
  await guest.hold(300, 2);
  await daemon.ok('set', 'full', '--balloon', '390M');
  const { diagnosis, balloon } = await daemon.until('full', (vm) => vm.diagnosis !== null, 'a verdict');
  t.match(diagnosis?.code, /^(out-of-puff|took-back)$/);
  t.ok(balloon.actualBytes < 390 * MIB);
  await eventually(
    async () => (await daemon.events()).some(({ event }) => event === 'verdict'),
    () => 'an event says so',
  );
  await daemon.ok('set', 'full', '--balloon', '50M', '--wait');
  t.equal(await guest.verify(), 0);
});
