// Two daemons whose policies both move the balloon of one real guest, each over a QMP socket of its own: the operator can see that.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { MIB, startDaemon } from '../support/e2e.js';
import { Guest } from '../support/lab/guest.js';

/** A policy that acts. */
function config(size: string): string {
  return `[[qmp]]
path = "{folder}/*.qmp"

[policy]
mode = "auto"
interval = 0.5
hold = 1

[[policy.band]]
name = "gold"
size = "${size}"
`;
}

void t.test('a policy that gives what another daemon takes is told of the other', async (t) => {
  const takes = await startDaemon(t, { config: config('working-set') });
  const gives = await startDaemon(t, { config: config('on-demand') });
  const sockets = [takes, gives].flatMap(({ folder }) => [
    '-qmp',
    `unix:${join(folder, 'shared.qmp')},server=on,wait=off`,
  ]);
  const guest = await Guest.boot({
    name: 'shared',
    memoryMib: 512,
    share: false,
    extraArgs: ['-device', 'virtio-balloon-pci,id=balloon0', ...sockets],
  });
  t.teardown(() => guest.kill());
  await guest.waitReady();
  await guest.hold(64, 1);
  const told = ({ diagnosis }: VmView): boolean => diagnosis?.code === 'moved-by-other';
  await gives.until('shared', told, 'it is told');
  await sleep(5000);
  t.ok(told(await gives.show('shared')), 'for as long as both act');
  t.equal(await guest.verify(), 0, 'what the guest holds is as it was written');
  await takes.ok('policy', 'mode', 'off');
  await guest.qmp('balloon', { value: 512 * MIB });
  await gives.until('shared', ({ verdict }) => verdict === null, 'the balloon is where it should be');
});
