// QEMU with a daemon whose log goes nowhere: the reader of it stalls, or its disk is full. Neither the guest nor QEMU's
// monitor notices, and a reset, in which QEMU dies of a daemon that is gone, is survived.
import t from 'tap';
import { boot, MIB } from '../support/e2e.js';
import { temporaryFolder } from '../support/fleet.js';
import { LOG_CHANNELS } from '../support/log-channel.js';
import { makeNoise, startLogged, until } from '../support/logged-daemon.js';

const CASES = [
  ['a pipe nobody reads', ['--supervise']],
  ['a disk that fills', []],
] as const;

for (const [name, more] of CASES) {
  void t.test(`logging to ${name}`, async (t) => {
    const folder = temporaryFolder(t);
    const channel = LOG_CHANNELS[name]?.(folder);
    if (channel === undefined) throw new Error(`there is no ${name}`);
    t.teardown(() => channel.close());
    const daemon = await startLogged(t, channel, folder, [...more]);
    const guest = await boot(t, daemon, 'unheard', { memoryMib: 256 });
    channel.break(daemon.pid);
    await makeNoise(daemon);
    const holds = (mib: number): Promise<unknown> =>
      until(`the guest gives up ${mib} MiB`, async () => {
        const { balloon } = await daemon.control.show('unheard');
        return balloon.actualBytes === mib * MIB;
      });
    await daemon.control.setTarget('unheard', { balloonBytes: 64 * MIB });
    await holds(64);
    t.match(await guest.qmp('query-status'), { status: 'running' }, 'the monitor answers');
    await guest.systemReset();
    await holds(64);
    t.match(await guest.qmp('query-status'), { status: 'running' }, 'QEMU lives');
    t.ok(await guest.eat(100), 'and so does the guest');
    t.equal(daemon.child.exitCode, null);
  });
}
