// Many VMs at once with a real daemon, by the commands that docs/operating.md and docs/moving-over.md show.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { call } from '../support/fleet.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { ANY_VMM } from '../support/vmm-orders.js';

const MIB = 2 ** 20;
const NAMES = ['web-1', 'web-2', 'db-1'];
const CONFIG = `${NAMES.map((name) => `[[socket]]\npath = "{folder}/${name}.sock"\nname = "${name}"\n`).join('\n')}
[policy]
mode = "observe"

[[policy.band]]
name = "gold"
match = ["db-*"]

[[policy.band]]
name = "bronze"
`;

void t.test('a host of several VMs, over a restart of its daemon', async (t) => {
  const daemon = await DaemonProcess.start({ config: CONFIG, supervise: true });
  t.teardown(() => daemon.stop());
  for (const name of NAMES) {
    const ram = new GuestRam([{ gpa: 0, lenBytes: 512 * MIB }]);
    const frontend = new Frontend({ socket: `${daemon.folder}/${name}.sock`, ram, order: ANY_VMM });
    t.teardown(() => frontend.close());
    await frontend.connect();
    (await BalloonDriver.start(frontend)).followTarget();
  }
  const ctl = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await daemon.ctl(...args);
    t.equal(code, 0, `${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const targets = async (): Promise<number[]> =>
    (JSON.parse(await ctl('list', '--json')) as VmView[]).map(({ balloon }) => balloon.targetBytes / MIB);

  t.match(
    await ctl('set', 'web-*', '--memory', '75%', '--dry-run'),
    /^web-1: would be: .*128 MiB .*\nweb-2: /,
  );
  t.same(await targets(), [0, 0, 0]);
  await ctl('set', '--band', 'bronze', '--balloon', '25%', '--wait');
  t.same(await targets(), [128, 128, 0], 'those of the band');
  await ctl('wait', '--all', '--for', 'target');
  t.equal(await ctl('list', '-o', 'name', '--band', 'gold'), 'db-1\n');

  const file = join(daemon.folder, 'targets.toml');
  writeFileSync(file, '[[vm]]\nmatch = "web-*"\nmemory = "50%"\n');
  t.match(await ctl('apply', '--file', file), /\n2 VMs changed, 0 as the file has them\n$/);
  t.same(await targets(), [256, 256, 0]);
  t.equal(await ctl('apply', '--file', file), '0 VMs changed, 2 as the file has them\n');

  const path = '/v1/vms/web-1';
  const { etag = '' } = (await call(daemon.controlPath, 'GET', path)).headers;
  await ctl('set', 'web-1', '--balloon', '64M');
  const late = await call(daemon.controlPath, 'PATCH', path, '{"balloonBytes":0}', { 'if-match': etag });
  t.equal(late.status, 412, 'an operator gave an order meanwhile');
  t.same(await targets(), [64, 256, 0]);

  await ctl('policy', 'mode', 'auto', '--dry-run');
  t.match(await ctl('policy', 'show'), /^mode observe: /);
  t.match(await ctl('policy', 'mode', 'off'), 'the policy: mode off: it does nothing');
  await daemon.crash();
  t.match(
    await ctl('policy', 'show'),
    /^mode off: .*\nthe policy is in mode off, whatever the configuration says/,
  );
  t.match(await ctl('policy', 'mode', 'configured'), 'mode observe');

  await ctl('set', '--all', '--balloon', '0');
  await ctl('wait', '--all', '--for', 'target');
  for (const name of (await ctl('list', '-o', 'name')).trim().split('\n'))
    await ctl('orders', name, '--take-back');
  t.match(await ctl('orders'), 'no order holds');
});
