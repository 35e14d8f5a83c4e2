// The native helper as users build it: hardened, without a network, and with one sentence where something is missing.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ROOT } from '../support/kubernetes.js';

const HELPER = 'src/native/build/Release/balloond_native.node';
const ADDON = 'node_modules/unix-dgram/build/Release/unix_dgram.node';
/** Programs that building takes, less the compiler. */
const TOOLS = ['sh', 'node', 'dirname', 'cat', 'find', 'tr', 'mkdir', 'mv', 'cp', 'rm'];

/** What is in the npm package for building, and what npm puts into it: sources and the script. */
function copySources(t: Test): string {
  const folder = t.testdir();
  mkdirSync(join(folder, 'scripts'));
  cpSync(join(ROOT, 'scripts/build-native'), join(folder, 'scripts/build-native'));
  cpSync(join(ROOT, 'src/native'), join(folder, 'src/native'), {
    recursive: true,
    filter: (path) => !path.endsWith('/build'),
  });
  for (const name of ['unix-dgram', 'nan']) {
    const to = join(folder, 'node_modules', name);
    cpSync(join(ROOT, 'node_modules', name), to, {
      recursive: true,
      filter: (path) => !path.endsWith('/build'),
    });
  }
  return folder;
}

function build(folder: string, env: Record<string, string> = {}): { status: number | null; said: string } {
  // npm tells of headers only where it was told of some; CFLAGS are the caller's.
  const inherited = { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '' };
  const { status, stdout, stderr } = spawnSync('sh', [join(folder, 'scripts/build-native')], {
    encoding: 'utf8',
    env: { ...inherited, ...env },
  });
  return { status, said: stdout + stderr };
}

/** A PATH with these programs and no other. */
function pathOf(folder: string, programs: readonly string[]): string {
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  for (const program of programs) {
    const found = execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
    symlinkSync(program === 'node' ? process.execPath : found, join(bin, program));
  }
  return bin;
}

const read = (path: string, option: string): string =>
  execFileSync('readelf', ['--wide', option, join(ROOT, path)], { encoding: 'utf8' });

for (const path of [HELPER, ADDON]) {
  void t.test(`${path} is fortified, and bound before it runs`, (t) => {
    t.match(read(path, '--dynamic'), /\bBIND_NOW\b/);
    t.match(read(path, '--program-headers'), /GNU_RELRO/);
    t.match(read(path, '--program-headers'), /GNU_STACK .* RW +0x/, 'no executable stack');
    const symbols = read(path, '--dyn-syms');
    t.match(symbols, /UND __stack_chk_fail@/);
    // unix-dgram calls nothing that has a checked form but where it knows the size.
    if (path === HELPER) t.match(symbols, /UND __\w+_chk@/, 'fortified');
    t.end();
  });
}

void t.test('the helper exports what Node looks for, and nothing else', (t) => {
  t.same(
    [...read(HELPER, '--dyn-syms').matchAll(/GLOBAL DEFAULT +\d+ (\w+)/g)].map(([, name]) => name).sort(),
    ['napi_register_module_v1', 'node_api_module_get_api_version_v1'],
  );
  t.end();
});

void t.test('those two are every native file that the programs load', (t) => {
  const list = execFileSync('npm', ['ls', '--omit=dev', '--all', '--parseable'], {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const packages = list.trim().split('\n').slice(1);
  t.ok(packages.length > 5);
  const native = packages.filter((path) => existsSync(join(path, 'binding.gyp')));
  t.same(native, [join(ROOT, 'node_modules/unix-dgram')]);
  t.end();
});

void t.test('without a C++ compiler, or with one that fails, the helper is built and stands in', (t) => {
  const folder = copySources(t);
  const none = build(folder, { CXX: 'no-such-compiler' });
  t.same(none, { status: 0, said: '' });
  t.ok(existsSync(join(folder, HELPER)));
  t.notOk(existsSync(join(folder, ADDON)));
  const failing = build(folder, { CXX: 'false' });
  t.equal(failing.status, 0);
  t.match(
    failing.said,
    /^balloond: unix-dgram's addon was not built, [^\n]*: the native helper sends datagrams\n$/,
  );
  t.notOk(existsSync(join(folder, ADDON)));
  const said = execFileSync(
    process.execPath,
    [
      '-e',
      `console.log(Object.keys(require(${JSON.stringify(join(folder, HELPER))})).includes('datagramConnect'))`,
    ],
    { encoding: 'utf8' },
  );
  t.equal(said, 'true\n');
  t.end();
});

void t.test('the compiler is told of no -Werror, and of nothing that is not on this machine', (t) => {
  const folder = copySources(t);
  const compiler = join(folder, 'recording-cc');
  writeFileSync(compiler, `#!/bin/sh\necho "$*" >>'${folder}/told'\nexec cc "$@"\n`);
  chmodSync(compiler, 0o755);
  const env = { CC: compiler, CXX: 'no-such-compiler', npm_config_offline: 'true' };
  const { status, said } = build(folder, env);
  t.equal(status, 0, said);
  t.equal(said, '', 'quiet');
  const told = readFileSync(join(folder, 'told'), 'utf8');
  t.match(told, '-D_FORTIFY_SOURCE=3');
  t.notMatch(told, '-Werror');
  const lines = told.split('\n').length;
  t.equal(build(folder, env).status, 0);
  t.equal(readFileSync(join(folder, 'told'), 'utf8').split('\n').length, lines, 'nothing is built twice');
  t.equal(build(folder, { ...env, CFLAGS: '-Werror' }).status, 0, 'the test command builds anew');
  t.match(readFileSync(join(folder, 'told'), 'utf8'), '-Werror');
  t.match(readFileSync(join(ROOT, 'scripts/setup'), 'utf8'), /^CFLAGS=-Werror npm run/m, 'as it says');
  t.end();
});

void t.test('what is missing is named by its Debian package, in one line', (t) => {
  const folder = copySources(t);
  const PATH = pathOf(folder, TOOLS);
  const noCompiler = build(folder, { PATH });
  t.equal(noCompiler.status, 1);
  t.equal(
    noCompiler.said,
    'balloond: the native helper cannot be built without gcc libc6-dev: run `apt-get install gcc libc6-dev`\n',
  );
  const noHeaders = build(folder, { BALLOOND_NODE_HEADERS: join(folder, 'none') });
  t.equal(noHeaders.status, 1);
  t.match(
    noHeaders.said,
    /^balloond: [^\n]* without libnode-dev: run `apt-get install libnode-dev`; [^\n]*\n$/,
  );
  const old = join(folder, 'old');
  mkdirSync(old);
  writeFileSync(join(old, 'node'), '#!/bin/sh\n[ "$1" != --version ] || echo v18.20.4\n');
  chmodSync(join(old, 'node'), 0o755);
  const tooOld = build(folder, { PATH: `${old}:${PATH}` });
  t.equal(
    tooOld.said,
    'balloond: the Node on PATH is v18.20.4, which is too old: install Node 20.19 or newer\n',
  );
  t.notOk(existsSync(join(folder, 'src/native/build')), 'and nothing is left behind');
  t.end();
});
