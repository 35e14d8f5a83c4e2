// The policy of a real daemon, with real guests: the host is said to be short, whatever it has.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { boot, MIB, startDaemon } from '../support/e2e.js';

const RAM_MIB = 512;

void t.test('who is of a lower band gives memory up, and explain says why', async (t) => {
  const total = /^MemTotal:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1];
  const daemon = await startDaemon(t, {
    config: `[[socket]]
path = "{folder}/vhost.sock"
stats-interval = 1

[policy]
mode = "auto"
reserve = "${Number(total) * 1024 - 64 * MIB}"
interval = 1
urgent-ramp = "10%"

[[policy.band]]
name = "gold"
match = ["db-*"]
min = "50%"

[[policy.band]]
name = "bronze"
match = ["batch-*"]
min = "40%"
`,
  });
  const [gold, bronze] = await Promise.all([
    boot(t, daemon, 'db-1', { memoryMib: RAM_MIB }),
    boot(t, daemon, 'batch-1', { memoryMib: RAM_MIB }),
  ]);
  await bronze.hold(64, 1);
  const given = await daemon.until(
    'batch-1',
    ({ balloon }) => balloon.actualBytes >= 0.5 * RAM_MIB * MIB,
    'memory of the lower band is taken',
  );
  t.ok(given.balloon.actualBytes <= 0.6 * RAM_MIB * MIB, 'never below its floor');
  const [first] = (await daemon.events()).filter(({ event }) => event === 'policy-took');
  t.match(first, { vm: 'batch-1', donor: 'batch-1', receiver: 'host' });
  const said = await daemon.ok('policy', 'explain', 'batch-1');
  t.comment(said);
  t.match(
    said,
    /^batch-1 \(bronze, 204\.8 MiB to 512 MiB\): auto\n.* took .* from batch-1 \(bronze\): .*host available/,
  );
  t.match((await daemon.show('batch-1')).policy, { band: 'bronze', mode: 'auto' });
  await daemon.ok('policy', 'pause', 'batch-1');
  t.match(await daemon.ok('policy', 'explain', 'batch-1'), /manual/);
  t.equal(await bronze.verify(), 0, 'what the guest holds stays intact');
  t.ok(await gold.eat(100), 'and the other goes on');
});
