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
    const told = (await daemon.events()).filter(({ event }) => event === 'took-back');
    t.equal(told.length, 1, 'one event, however often the guest takes');
    t.match(told[0]?.message, /ran out of memory.*of 300 MiB$/);
    t.match((await daemon.ctl('show', 'greedy')).stdout, /Verdict +the guest ran out of memory and took/);
    t.equal(await guest.verify(), 0);
    await guest.drop();
    await daemon.ok(...order);
    t.equal((await daemon.show('greedy')).diagnosis, null);
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
    async () => (await daemon.events()).some(({ event }) => /^(verdict|took-back)$/.test(event)),
    () => 'an event says so',
  );
  await daemon.ok('set', 'full', '--balloon', '50M', '--wait');
  t.equal(await guest.verify(), 0);
});
