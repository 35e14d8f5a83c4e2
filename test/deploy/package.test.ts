// The npm package: packed, installed where there is nothing yet, and run from there. Dependencies come from wherever npm is
// configured to get them.
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { DaemonProcess } from '../support/daemon.js';
import { ROOT } from '../support/kubernetes.js';

const run = promisify(execFile);

interface Manifest {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
}
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;
const MOST_PACKAGES = 24;

void t.test('packed, installed into a fresh prefix, and run', async (t) => {
  const folder = t.testdir();
  const pack = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const [packed] = JSON.parse((await run('npm', pack, { cwd: ROOT })).stdout) as [
    { filename: string; files: { path: string }[] },
  ];
  const paths = packed.files.map(({ path }) => path);
  t.same(
    paths.filter((path) => /\.map$|(^|\/)(build|test|node_modules)\/|^out\/(src|test)/.test(path)),
    [],
    'nothing that only its makers need',
  );

  const prefix = join(folder, 'prefix');
  const options = [
    ...['--global', '--prefix', prefix, '--ignore-scripts', '--prefer-offline'],
    ...['--no-audit', '--no-fund', '--loglevel=error'],
  ];
  await run('npm', ['install', ...options, join(folder, packed.filename)], { cwd: folder });
  const unpacked = join(prefix, 'lib/node_modules/balloond');
  await run('sh', [join(unpacked, 'scripts/build-native')]);
  t.ok(existsSync(join(unpacked, 'node_modules/unix-dgram/build/Release/unix_dgram.node')));
  const program = (name: string): string => join(prefix, 'bin', name);
  t.equal((await run(program('balloond'), ['--version'])).stdout.trim(), manifest.version);

  // As `npm run install-system` does from the repository.
  const installer = join(unpacked, 'scripts/install-system');
  const installed = join(folder, 'installed');
  await run('sh', [installer], { env: { ...process.env, DESTDIR: installed } });
  await run(join(installed, 'usr/sbin/balloond'), ['--print-capabilities']);
  const { stdout } = await run(process.execPath, ['--print', "typeof require('unix-dgram').createSocket"], {
    cwd: join(installed, 'usr/lib/balloond'),
  });
  t.equal(stdout, 'function\n', 'unix-dgram comes along');

  const daemon = await DaemonProcess.start({ program: program('balloond'), metrics: true });
  t.teardown(() => daemon.stop());
  const list = await run(program('balloonctl'), ['--control', daemon.controlPath, '--json', 'list']);
  t.same(JSON.parse(list.stdout), []);
  for (const path of ['/', '/page.js', '/page.css'])
    t.equal((await fetch(daemon.metricsUrl + path)).status, 200, path);
});

void t.test('few packages are installed with it, and for each that it asks for there is a reason', (t) => {
  const list = execFileSync('npm', ['ls', '--omit=dev', '--all', '--parseable'], {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const count = list.trim().split('\n').length - 1;
  t.ok(count <= MOST_PACKAGES, `${count} packages`);
  const reasons = readFileSync(join(ROOT, 'docs/development/dependencies.md'), 'utf8');
  t.match(reasons, `${count} packages`, 'the number is the documented one');
  const rows = new Map(
    [...reasons.matchAll(/^\| (\S+) (\S+) \| [^|]+ \| [^|]+ \| [^|]+ \|$/gm)].map(([, name, version]) => [
      name,
      version,
    ]),
  );
  t.same(Object.fromEntries(rows), manifest.dependencies, 'one row each: what for, and what was rejected');
  t.end();
});
