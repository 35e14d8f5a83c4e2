// Each way to install, as docs/installing.md has it and without DESTDIR, in a fresh Debian root: with Debian's Node and npm, and
// with Node 24. Takes long and needs root, so it is run by name: npm test -- out/test/deploy/install.check.js
// `node out/test/deploy/install.check.js 'from source'` runs those whose names have the words. The commands are the page's own. `sudo` is Debian's; the user is alice.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Container, startVmm } from '../support/container.js';
import { readDockerfile } from '../support/dockerfile.js';
import { buildImage, copySources, npmEnvironment, runImage, runLine } from '../support/image.js';
import { ROOT } from '../support/kubernetes.js';

t.setTimeout(0);

const HOME = '/home/alice';
const SOURCES = `${HOME}/balloond`;
const VMM_UID = 64_123;
const PAGE = readFileSync(join(ROOT, 'docs/installing.md'), 'utf8');
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };

/** The shell blocks below a heading of the page. */
function blocks(heading: string): string[] {
  const section = PAGE.split(/^## /m).find((each) => each.startsWith(`${heading}\n`));
  const found = [...(section ?? '').matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, block = '']) => block);
  if (found.length === 0) throw new Error(`the page has no commands below ${heading}`);
  return found;
}

const [aptDebian = '', aptOwn = '', build = ''] = blocks('From source');
const [purge = ''] = blocks('Removing it').slice(1);
/** The packages of an apt-get line of the page. */
const packages = (line: string): string[] =>
  line
    .replace(/.*--no-install-recommends/, '')
    .trim()
    .split(' ');
const script = (name: string, args: readonly string[]): string =>
  execFileSync('sh', [join(ROOT, 'scripts', name), ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  }).trim();

interface Machine {
  readonly name: string;
  /** Returns the folder of a root that has what the page's apt-get line asks for; it is made once. */
  readonly base: () => string;
  readonly apt: string;
}
const machines: readonly Machine[] = [
  {
    name: "Debian's Node and npm",
    base: () => script('debian-root', ['systemd', 'sudo', 'passwd', ...packages(aptDebian)]),
    apt: aptDebian,
  },
  {
    name: 'Node 24 and its npm',
    base: () => script('image-lab', ['systemd', 'sudo', ...packages(aptOwn)]),
    apt: aptOwn,
  },
];

let deb: string | undefined;
const folder = mkdtempSync('/tmp/balloond-install-');
// Roots are layers above their bases, in memory.
execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', folder]);
process.on('exit', () => {
  execFileSync('umount', ['--lazy', '--recursive', folder]);
  rmdirSync(folder);
});

/** A fresh Debian with the user alice, who may use sudo. */
class Root {
  readonly path: string;

  constructor(t: Test, base: string) {
    const layer = mkdtempSync(join(folder, 'layer-'));
    chmodSync(layer, 0o755);
    this.path = join(layer, 'root');
    const [upper, work] = [join(layer, 'upper'), join(layer, 'work')];
    for (const each of [this.path, upper, work]) mkdirSync(each);
    const options = `lowerdir=${base},upperdir=${upper},workdir=${work}`;
    execFileSync('mount', ['-t', 'overlay', '-o', options, 'overlay', this.path]);
    t.teardown(() => {
      execFileSync('umount', ['--lazy', this.path]);
      rmSync(layer, { recursive: true, force: true });
    });
    const settings = npmEnvironment('/mnt/authorities')
      .env.filter((each) => each.startsWith('npm_config_'))
      .map(
        (each) =>
          `${each.replace(/^npm_config_([a-z_]+)/, (_, name: string) => name.replaceAll('_', '-'))}\n`,
      );
    writeFileSync(join(this.path, 'root/.npmrc'), settings.join(''));
    this.asRoot(`useradd --create-home alice
      echo 'alice ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice
      install -o alice -m 600 /root/.npmrc ${HOME}/.npmrc
      systemctl --version >/dev/null`);
  }

  asRoot(line: string): string {
    return runLine(line, this.path, '/');
  }

  /** Runs commands of the page. Nothing can be started in a root: the host VM does that (test/e2e). */
  asAlice(commands: string, workdir = SOURCES): string {
    const line = commands.replaceAll('systemctl enable --now', 'systemctl enable');
    writeFileSync(join(this.path, 'tmp/page.sh'), `set -e\ncd ${workdir}\n${line}`);
    return this.asRoot(`env -i HOME=${HOME} LOGNAME=alice PATH=/usr/local/bin:/usr/bin:/bin \\
      setpriv --reuid alice --regid alice --init-groups sh -e /tmp/page.sh`);
  }

  addSources(): void {
    copySources(join(this.path, SOURCES));
    this.asRoot(`chown -R alice: ${SOURCES}`);
  }

  /** Everything but homes, what apt and npm keep, and what is empty again; and all accounts. */
  traces(): string[] {
    return this.asRoot(
      `{ find / -xdev \\( -path /home -o -path /proc -o -path /dev -o -path /sys -o -path /mnt -o -path /tmp \\
        -o -path /root -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \\) -prune -o -print
      cut -d: -f1 /etc/passwd /etc/group /etc/shadow /etc/gshadow; } | sort`,
    )
      .trim()
      .split('\n');
  }
}

/** The list that an installation below this folder keeps. */
function listedIn(path: string): string[] {
  return readFileSync(join(path, 'usr/lib/balloond/installed-files'), 'utf8').trim().split('\n');
}

/** The Debian package has what the other ways install, but for licenses, which are in its copyright file, and the list of folders. */
function assertSameFiles(t: Test, path: string): void {
  const stage = join(folder, 'stage');
  const env = { ...process.env, DESTDIR: stage };
  execFileSync('sh', [join(ROOT, 'scripts/install-system')], { env });
  const packed = new Set(listedIn(path).map((file) => file.replace(/\.gz$/, '')));
  const missing = listedIn(stage).filter((file) => !packed.has(file));
  rmSync(stage, { recursive: true });
  t.ok(missing.length > 0, 'licenses are elsewhere');
  t.same(
    missing.filter((file) => !/\/licen[cs]e[^/]*$|\/made-folders$/i.test(file)),
    [],
    'and no other file is',
  );
}

/** What is installed by the other ways is what DESTDIR gets: all files, and no other. */
function assertInstalled(t: Test, root: Root, before: readonly string[]): void {
  const known = new Set(before);
  const listed = listedIn(root.path);
  const missing = listed.filter((path) => !existsSync(join(root.path, path)) && !/\/s?bin\//.test(path));
  t.same(missing, [], 'what the list has is there, ');
  const expected = new Set([...listed, '/etc/balloond.toml', '/usr/lib/balloond/installed-files']);
  const added = root.traces().filter((path) => path.startsWith('/') && !known.has(path));
  const others = added.filter(
    (path) =>
      !expected.has(path) &&
      !listed.some((file) => file.startsWith(`${path}/`)) &&
      !/^\/etc\/(balloond\.toml\.d|systemd\/system\/\S+\.wants)|^\/(var|usr\/local)\/|^\/run\/balloond|^\/etc\/.*-$/.test(
        path,
      ),
  );
  t.same(others, [], 'and nothing else is');
  t.ok(existsSync(join(root.path, 'etc/balloond.toml.d')));
}

/** A daemon of the root, as its own user, serves a VM. */
async function assertServes(t: Test, root: Root): Promise<void> {
  t.equal(root.asRoot('balloond --version').trim(), version);
  const [uid = ''] = root.asRoot('id -u balloond; id -g balloond').split('\n');
  const as = ['setpriv', '--reuid', uid, '--regid', uid, '--clear-groups'];
  const socket = '/run/balloond/vmm.sock';
  const command = ['balloond', '--supervise', '--socket-path', socket, '--log-format', 'json'];
  const container = new Container(runImage(root.path, command, { as }), as);
  t.teardown(() => container.stop());
  await container.started(1);
  chmodSync(join(root.path, socket), 0o666);
  startVmm(t, folder, join(root.path, socket), 'web-1', [VMM_UID, VMM_UID]);
  await container.vm(({ name, state }) => name === 'web-1' && state === 'running', 'web-1 runs');
  t.pass('the list has the VM');
  await container.stop();
}

/** Which to run, when not all. */
const [, , only = ''] = process.argv;
function way(name: string, run: (t: Test) => Promise<void>): void {
  if (name.includes(only)) void t.test(name, run);
}

for (const machine of machines) {
  way(`from source: ${machine.name}`, async (t) => {
    const root = new Root(t, machine.base());
    root.addSources();
    const before = root.traces();
    root.asAlice(machine.apt);
    const started = performance.now();
    root.asAlice(build);
    t.comment(`built and installed in ${Math.round((performance.now() - started) / 1000)} s`);
    assertInstalled(t, root, before);
    await assertServes(t, root);
    const config = join(root.path, 'etc/balloond.toml');
    writeFileSync(config, '# the operator was here\n');
    root.asAlice('sudo npm run install-system');
    t.equal(readFileSync(config, 'utf8'), '# the operator was here\n', 'an upgrade leaves the configuration');
    // Killed while it moves files, it leaves a rest, which the next one takes away.
    root.asRoot(`mkdir /tmp/shim
      printf '#!/bin/sh\\necho >>/tmp/shim/count\\n[ $(wc -l </tmp/shim/count) -lt 9 ] || kill -s KILL 0\\nexec /usr/bin/mv "$@"\\n' >/tmp/shim/mv
      chmod +x /tmp/shim/mv
      ! PATH=/tmp/shim:$PATH setsid --wait sh ${SOURCES}/scripts/install-system 2>/dev/null
      [ -e /usr/lib/balloond.new ]`);
    root.asAlice('sudo npm run install-system');
    t.notOk(existsSync(join(root.path, 'usr/lib/balloond.new')));
    assertInstalled(t, root, before);
    root.asAlice('sudo npm run uninstall-system');
    t.ok(existsSync(config), 'removed, the configuration stays');
    root.asAlice(purge);
    t.same(difference(root.traces(), before), [], 'purged, nothing is left');
  });

  way(`npm package: ${machine.name}`, async (t) => {
    const root = new Root(t, machine.base());
    root.addSources();
    const before = root.traces();
    const [pack = '', install = ''] = blocks('npm package');
    root.asAlice(pack);
    root.asAlice(install);
    assertInstalled(t, root, before);
    await assertServes(t, root);
    root.asAlice('sudo sh "$(npm root --global)/balloond/scripts/install-system" --purge');
    root.asAlice('sudo npm uninstall --global balloond');
    // Debian's npm makes its folder with the first package that it installs, and leaves the folder.
    const left = difference(root.traces(), before).filter((each) => each !== '+ /usr/local/lib/node_modules');
    t.same(left, [], 'nothing is left');
  });

  way(`the Dockerfile's lines: ${machine.name}`, async (t) => {
    const base = new Root(t, machine.base());
    base.asRoot('id node >/dev/null 2>&1 || useradd node');
    const stages = join(folder, 'image');
    rmSync(stages, { recursive: true, force: true });
    execFileSync('mkdir', [stages]);
    const image = buildImage(readDockerfile(join(ROOT, 'Dockerfile')), base.path, stages);
    t.equal(runLine('balloond --version', image, '/').trim(), version);
    t.match(runLine('balloond --print-capabilities', image, '/'), 'balloon');
    rmSync(stages, { recursive: true, force: true });
    await Promise.resolve();
  });
}

way('making the Debian package', async (t) => {
  const [machine] = machines;
  if (machine === undefined) throw new Error('there is no machine');
  const root = new Root(t, machine.base());
  root.addSources();
  const [make = ''] = blocks('Debian package');
  root.asAlice(`${machine.apt}\n${make}`);
  t.same(root.asAlice('ls out/deb').trim().split('\n'), [
    `balloond_${version}_amd64.deb`,
    `virtio-balloon-dkms_${version}_all.deb`,
  ]);
  await Promise.resolve();
});

for (const machine of machines) {
  way(`Debian package: ${machine.name}`, async (t) => {
    const root = new Root(t, machine.base());
    if (machine.apt === aptOwn) addNodePackage(root);
    // A Debian that its installer made has the manual pages of its packages.
    root.asRoot('rm /etc/dpkg/dpkg.cfg.d/99mmdebstrap');
    const before = root.traces();
    deb ??= script('deb', []).split('\n')[0] ?? '';
    copyFileSync(join(ROOT, deb), join(root.path, HOME, `balloond_${version}_amd64.deb`));
    const [, install = ''] = blocks('Debian package');
    root.asAlice(install, HOME);
    assertInstalled(t, root, before);
    assertSameFiles(t, root.path);
    await assertServes(t, root);
    root.asRoot('apt-get purge --yes balloond');
    t.same(difference(root.traces(), before), [], 'purged, nothing is left');
  });
}

/** Newer Nodes come as a package of this name from elsewhere, with the program and headers in /usr. */
function addNodePackage(root: Root): void {
  root.asRoot(`mkdir -p /tmp/nodejs/DEBIAN /tmp/nodejs/usr/bin
    cp /usr/local/bin/node /tmp/nodejs/usr/bin/
    printf 'Package: nodejs\\nVersion: %s-1\\nArchitecture: amd64\\nMaintainer: x <x@x.example>\\nDescription: Node\\n' \\
      "$(node -p process.versions.node)" >/tmp/nodejs/DEBIAN/control
    dpkg-deb --build /tmp/nodejs /tmp/nodejs.deb && dpkg --install /tmp/nodejs.deb && rm /usr/local/bin/node`);
}

function difference(after: readonly string[], before: readonly string[]): string[] {
  const [was, is] = [new Set(before), new Set(after)];
  return [
    ...after.filter((each) => !was.has(each)).map((each) => `+ ${each}`),
    ...before.filter((each) => !is.has(each)).map((each) => `- ${each}`),
  ];
}
