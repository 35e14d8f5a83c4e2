import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { passedOn } from '../../../protocol/control/refusal.js';
import { examineUnreachable, unitStateOf, type UnitState } from '../../../src/control/cli/unreachable.js';
import { examineSockets } from '../../../src/control/cli/vmm-sockets.js';
import { closeFd } from '../../../src/os/fd.js';
import { listenUnix } from '../../../src/os/socket.js';

const unit = (active: string, sub: string, result = 'success', job = ''): UnitState =>
  unitStateOf(`ActiveState=${active}\nSubState=${sub}\nResult=${result}\n${job}`);

void t.test('doctor names the remedy of each cause for which no daemon answers', (t) => {
  const mendOf = (code: string, state: UnitState | null, mistakes = ''): string | null | undefined =>
    examineUnreachable({ code, message: passedOn('gone') }, '/etc/shadow', state, mistakes)[0]?.mend;
  t.equal(
    mendOf('ENOENT', null),
    'systemctl start balloond.service, or balloond --supervise without systemd',
  );
  t.equal(mendOf('ENOENT', unit('inactive', 'dead')), 'systemctl start balloond.service');
  t.equal(mendOf('ENOENT', unit('active', 'running')), 'systemctl restart balloond.service');
  t.match(mendOf('ECONNREFUSED', unit('failed', 'failed', 'exit-code')), /^journalctl -u balloond/);
  t.match(mendOf('ECONNREFUSED', unit('activating', 'auto-restart')), /^journalctl -u balloond/);
  t.match(
    mendOf('ENOENT', null, 'balloond.toml:3:1: no such key'),
    /^mend the mistake, then systemctl start/,
  );
  t.match(mendOf('EACCES', null), /^(usermod -aG shadow USER|run this as root)/);
  t.end();
});

void t.test('a unit is stopped when nobody starts it', (t) => {
  t.ok(unit('inactive', 'dead').stopped);
  t.ok(unit('failed', 'failed', 'exit-code').stopped);
  t.notOk(unit('inactive', 'dead', 'success', 'Job=4711\n').stopped, 'a restart, between its halves');
  for (const state of ['active', 'activating', 'deactivating', 'reloading'])
    t.notOk(unit(state, 'dead').stopped, state);
  t.end();
});

void t.test('doctor finds a socket of the daemon that nobody can reach', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bd-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'vmm.sock');
  const fd = listenUnix(path, 0o660);
  const found = (): unknown[] => examineSockets(process.pid).map(({ level, found }) => [level, found]);
  t.same(found(), [['ok', path]]);
  chmodSync(path, 0);
  t.same(found(), [['mend', `${path} does not let its group connect`]]);
  rmSync(path);
  t.same(found(), [['mend', `${path} was removed, so nobody can connect`]]);
  closeFd(fd);
  t.end();
});
