import { execFile } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { BIN } from '../../support/daemon.js';
import { serveFleet } from '../../support/fleet.js';

void t.test(
  'a name alone is that of a domain, where no file has that name, and no socket is known by that path',
  async (t) => {
    const { socketPath, fleet } = await serveFleet(t);
    const ctl = (...args: string[]): Promise<string> =>
      new Promise((resolve) => {
        const command = [join(BIN, 'balloonctl.js'), '--control', socketPath, 'adopt', ...args];
        execFile(process.execPath, command, { cwd: '/' }, (_, stdout, stderr) => resolve(stdout + stderr));
      });
    await fleet.changeAdopted({ path: 'libvirt:web', adopted: true });
    t.match(await ctl('web'), /^libvirt:web: adopted over QMP/, 'the fleet in memory knows no other way');
    t.equal(await ctl('--release', 'web'), 'libvirt:web: released; its balloon stays as it is\n');
    await fleet.changeAdopted({ path: '/web', adopted: true });
    t.match(await ctl('web'), /^web: adopted over QMP/, 'a path in the folder of the operator');
    t.same(
      fleet.adopted().map(({ path }) => path),
      ['/web'],
    );
    t.match(await ctl('libvirt:db'), /^libvirt:db: adopted/);
  },
);
