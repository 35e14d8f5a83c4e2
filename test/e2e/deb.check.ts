// The Debian package on a Debian host with systemd: made, looked at by lintian, installed, upgraded under a VM, purged.
// Takes minutes and needs root, so it is run by name: npm test -- out/test/e2e/deb.check.js
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { MIB } from '../support/e2e.js';
import { HostVm, ROOT, TESTS, WAIT } from '../support/host-lab/host-vm.js';

t.setTimeout(0);

const DEB = '/opt/balloond.deb';
const DEB_BEFORE = '/opt/balloond-before.deb';
/** Everything on disk but the tests' own and what dpkg keeps of itself, what is left in /run, and all accounts. */
const TRACES = `{ find / -xdev \\( -path ${TESTS} -o -path /var/lib/dpkg -o -path /var/log \\) -prune -o -print
  find /run -name '*balloon*'; cut -d: -f1 /etc/passwd /etc/group /etc/shadow /etc/gshadow; } | sort`;

const script = (...command: string[]): string =>
  execFileSync('sh', command, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
// lintian's errors and warnings fail it.
const [deb = ''] = script('scripts/deb').split('\n');
/** The version before: operators upgrade from it. */
const before = script('scripts/deb-before');
const host = await HostVm.boot((stage) => {
  mkdirSync(join(stage, 'opt'), { recursive: true });
  cpSync(join(ROOT, deb), join(stage, DEB));
  cpSync(before, join(stage, DEB_BEFORE));
  return Promise.resolve();
});
t.teardown(() => host.close());
await host.unpack();
await host.ok(`useradd --system vmm && ${TRACES} >/run/before`);

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
void t.test('its version is the version', (t) => {
  t.match(deb, `balloond_${version}_amd64.deb`);
  t.end();
});

void t.test('the version before is installed, and serves', async (t) => {
  t.comment(await host.ok(`dpkg --install ${DEB_BEFORE}`));
  t.equal(await host.service('ActiveState'), 'active');
  t.equal(await host.ok('systemctl is-enabled balloond.socket balloond.service'), 'enabled\nenabled');
  t.equal(await host.ok("stat --format='%a %U %G' /run/balloond/balloond.sock"), '660 root balloond-vmm');
  await host.ok(
    'systemd-run --quiet --unit=web --service-type=notify --uid=vmm --property=SupplementaryGroups=balloond-vmm ' +
      `node ${TESTS}/out/test/support/host-lab/vmm.js /run/balloond/balloond.sock -name guest=web shared`,
  );
  await host.ok(`balloonctl set web --balloon 16M ${WAIT}`);
  t.match(await host.json<VmView>('balloonctl --json show web'), {
    state: 'running',
    verdict: null,
    balloon: { discardedBytesTotal: 16 * MIB },
  });
});

void t.test(
  'an upgrade leaves VMs and the daemon alone until it is restarted, and then goes on with them',
  async (t) => {
    const pid = await host.service('MainPID');
    t.notMatch(await host.ok(`dpkg --install ${DEB} 2>&1`), /static unit/, 'it names nothing to worry about');
    t.equal(await host.service('MainPID'), pid);
    t.equal(await host.ok('balloond --version'), version);
    const page = readFileSync(join(ROOT, 'docs/upgrading.md'), 'utf8');
    const [, commands = ''] = /^```sh\n([^]*?)^```$/m.exec(page) ?? [];
    t.match(await host.ok(commands), /^web +running /m, 'what the page says');
    t.not(await host.service('MainPID'), pid);
    t.match(await host.json<VmView>('balloonctl --json show web'), { balloon: { actualBytes: 16 * MIB } });
    await host.ok(`balloonctl set web --balloon 17M ${WAIT}`);
    t.equal(await host.ok('systemctl is-active web.service'), 'active');
  },
);

void t.test('what the operator wrote into /etc/balloond.toml is left as it is', async (t) => {
  await host.ok(`echo '# mine' >>/etc/balloond.toml && dpkg --install ${DEB}`);
  t.match(await host.ok('tail -n 1 /etc/balloond.toml'), '# mine');
  t.match(await host.ok('dpkg-query --show --showformat "\\${Conffiles}" balloond'), '/etc/balloond.toml');
});

void t.test('what docs/installing.md tells of page cache balloons', async (t) => {
  const page = readFileSync(join(ROOT, 'docs/installing.md'), 'utf8');
  const [, script = ''] = /^## Page cache balloons$[^]*?^```sh\n([^]*?)^```$/m.exec(page) ?? [];
  t.match(await host.ok(script), 'virtio-id=13');
  const socket = '/run/balloond/vmm/cache-balloon.sock';
  t.equal(await host.ok(`stat --format='%a %U %G' ${socket}`), '660 balloond balloond-vmm');
  await host.ok(
    'systemd-run --quiet --unit=cached --service-type=notify --uid=vmm --property=SupplementaryGroups=balloond-vmm ' +
      `node ${TESTS}/out/test/support/host-lab/vmm.js ${socket} -name guest=cached shared`,
  );
  t.match(await host.json<VmView>('balloonctl --json show cached'), { state: 'running', cache: {} });
  await host.ok('systemctl stop cached.service');
  await host.ok('rm /etc/tmpfiles.d/balloond-vmm.conf && rm -r /etc/balloond.toml.d');
});

void t.test('purged, it leaves nothing', async (t) => {
  const refused = await host.ok('dpkg --purge balloond 2>&1 || true');
  t.match(
    refused,
    /VMs have their balloon from balloond \("web"\), and would be lost .*: stop them/,
    'not while a VM runs',
  );
  await host.ok('systemctl stop web.service');
  t.comment(await host.ok('dpkg --purge balloond'));
  t.equal(await host.ok(`${TRACES} | diff /run/before - || true`), '');
  t.equal(await host.ok("systemctl list-units --all --no-legend 'balloond*'"), '');
});
