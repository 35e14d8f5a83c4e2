import t from 'tap';
import { Keeper } from '../../src/ops/keeper.js';
import { eventually } from '../support/deadline.js';

void t.test('a daemon that hangs before it is ready is killed, and started again', async (t) => {
  const said: string[] = [];
  const emit = (event: string): void => void said.push(event);
  const keeper = new Keeper(['sleep', '1000'], '/bin/sleep', emit, 50);
  const ended = keeper.run();
  await eventually(
    () => said.filter((event) => event === 'daemon-ended').length >= 2,
    () => said.join(),
  );
  t.equal(said[0], 'daemon-stuck');
  t.ok(said.includes('daemon-ended'));
  keeper.stop('SIGTERM');
  await ended;
});
