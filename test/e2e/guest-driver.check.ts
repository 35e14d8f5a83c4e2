// The commands of docs/guest-driver.md in a Debian 13 that nobody prepared: the packages, the module that DKMS builds, the guest that boots with
// it, newer kernels with and without a build, a kernel that wants signatures, and the way back. Commands that install packages run in a chroot
// (test/support/debian-guest.ts), all others in the booted guest. Takes minutes and needs root and Debian's archive, so it is run by name:
// npm test -- out/test/e2e/guest-driver.check.js
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { commandsOf } from '../docs/commands.js';
import { invocationsIn } from '../docs/invocations.js';
import { readPage, ROOT, type Block } from '../docs/page.js';
import { isAsShown } from '../docs/shape.js';
import type { DaemonProcess } from '../support/daemon.js';
import { DebianGuest } from '../support/debian-guest.js';
import { MIB, startDaemon } from '../support/e2e.js';
import type { Guest } from '../support/lab/guest.js';

t.setTimeout(0);

const PAGE = 'docs/guest-driver.md';
const PATIENCE_MS = 600_000;
const NAME = 'web-1';
const OURS = /\/updates\/dkms\/virtio_balloon\.ko/;
const KERNELS = /\/kernel\/drivers\/virtio\/virtio_balloon\.ko/;
const COMPLAINTS = /oom-kill|BUG|WARNING|Call Trace|Bad page/;
const PACKAGE = 'virtio-balloon-dkms';
const BREAK = "echo '#error it cannot be built' >>";
const APT = 'apt-get install --yes --no-install-recommends';

const blocks = readPage(PAGE).blocks.filter(({ mark }) => mark?.kind === 'checked');
const unused = new Set(blocks);
/** The block of the page that begins with these words. */
function block(words: string): Block {
  const [found, other] = blocks.filter(({ text }) => text.startsWith(words));
  if (found === undefined || other !== undefined)
    throw new Error(`${PAGE} has not one block that begins with ${words}`);
  unused.delete(found);
  return found;
}
const commands = (words: string): string => `set -e\n${block(words).text}`;

execFileSync('sh', [join(ROOT, 'scripts/deb')], { stdio: ['ignore', 'ignore', 'inherit'] });
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
const DEB = `${PACKAGE}_${version}_all.deb`;

const folder = mkdtempSync('/tmp/balloond-guest-');
// Roots are layers above their base, in memory.
execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', folder]);
process.on('exit', () => {
  execFileSync('umount', ['--lazy', '--recursive', folder]);
  rmdirSync(folder);
});

const bare = new DebianGuest(t, folder);
bare.copy(join(ROOT, 'out/deb', DEB), DEB);
bare.copy(join(ROOT, 'guest/virtio_balloon'), 'virtio_balloon');
const [kernel = ''] = bare.kernels;
const moduleOf = (tree: DebianGuest, release: string): string =>
  tree.sh(`modinfo --set-version ${release} --field filename virtio_balloon`);

/** What the host says of the guest that has booted: ours has a page cache balloon, the kernel's own has none. */
async function serves(
  daemon: DaemonProcess,
  driver: 'ours' | "the kernel's",
  balloonMib: number,
): Promise<void> {
  await daemon.ok('set', NAME, '--balloon', `${balloonMib}M`);
  await daemon.until(
    NAME,
    ({ cache, balloon }) =>
      (cache !== null) === (driver === 'ours') && balloon.actualBytes === balloonMib * MIB,
    `${driver} driver holds ${balloonMib} MiB`,
  );
}

async function booted(
  t: Test,
  tree: DebianGuest,
  release: string,
  kernelArgs: readonly string[] = [],
): Promise<{ daemon: DaemonProcess; guest: Guest; sh: (text: string) => Promise<string> }> {
  const daemon = await startDaemon(t);
  const sockets = [{ path: daemon.socketPath }];
  const guest = await tree.boot(t, release, { name: NAME, sockets, kernelArgs });
  const sh = async (text: string): Promise<string> => {
    const { code, output } = await guest.sh(`cd /root; ${text}`, PATIENCE_MS);
    if (code !== 0) throw new Error(`${text} ended with ${code}: ${output}`);
    return output.trim();
  };
  t.equal(await sh('uname -r'), release);
  return { daemon, guest, sh };
}

t.match(moduleOf(bare, kernel), KERNELS, "before, it is the kernel's own");
bare.sh(commands('apt-get update'));

await t.test('the folder alone', (t) => {
  const tree = new DebianGuest(t, folder, bare);
  tree.sh(commands('dkms install ./virtio_balloon'));
  t.match(moduleOf(tree, kernel), OURS);
  tree.sh(commands(`dkms remove virtio-balloon/${version} --all`));
  t.match(moduleOf(tree, kernel), KERNELS);
  t.notOk(existsSync(join(tree.path, `usr/src/virtio-balloon-${version}`)));
  tree.sh(`${BREAK} virtio_balloon/balloon.c`);
  t.match(tree.sh('dkms install ./virtio_balloon || true'), /Bad return status for module build/);
  t.match(moduleOf(tree, kernel), KERNELS, 'it cannot be built, and nothing is changed');
  t.end();
});

const installed = new DebianGuest(t, folder, bare);
t.match(installed.sh(commands(`${APT} ./${DEB}`)), /Installing .*\/updates\/dkms\//);
t.match(moduleOf(installed, kernel), OURS);

await t.test('the initramfs has no driver, or the one that is installed', (t) => {
  const tree = new DebianGuest(t, folder, installed);
  t.equal(tree.sh(`${commands('lsinitramfs')} || true`), '');
  tree.sh(`echo virtio_balloon >>/etc/initramfs-tools/modules; ${commands('update-initramfs')}`);
  t.match(tree.sh(commands('lsinitramfs')), OURS);
  t.end();
});

await t.test('a guest boots with it, changes to it while it runs, and goes back', async (t) => {
  const { daemon, guest, sh } = await booted(t, installed, kernel);
  await serves(daemon, 'ours', 32);
  // As in a guest that has just installed it: the kernel's own runs, which DKMS keeps.
  await sh(
    `rmmod virtio_balloon; insmod "$(find /var/lib/dkms/virtio-balloon/original_module -name '*.ko.xz')"`,
  );
  await serves(daemon, "the kernel's", 48);
  await sh(commands('modprobe --remove'));
  await serves(daemon, 'ours', 48);
  t.match(await sh(commands('modinfo --field filename')), OURS);

  for (const { text, output } of commandsOf(block('$ balloonctl'))) {
    const [call] = invocationsIn(text);
    const printed = await daemon.ok(...(call?.args ?? []));
    t.ok(output === null || isAsShown(printed, output, false), `${text} is as shown: ${printed}`);
    if (text.includes('--cache-limit'))
      await daemon.until(
        NAME,
        ({ cache }) => cache?.actualBytes === cache?.targetBytes,
        'the limit is reached',
      );
  }
  const view = block('$ cat /sys/kernel/debug');
  for (const { text, output } of commandsOf(view)) {
    // Now and then it has just reported free pages.
    const printed = (await sh(text)).replaceAll(/^.* waits for the host: .*\n/gm, '');
    t.ok(output !== null && isAsShown(printed, output, false), `${text} is as shown: ${printed}`);
  }
  const names = [...(await sh('modinfo --parameters virtio_balloon')).matchAll(/^(\w+):/gm)].map(
    ([, name]) => name,
  );
  const example = readFileSync(join(ROOT, 'guest/modprobe.conf'), 'utf8');
  for (const name of names) t.match(example, ` ${name}=`);
  await sh(commands('cp /usr/share/doc'));
  t.equal(await sh('cat /proc/sys/vm/min_free_kbytes'), '8192');
  await sh(commands('echo 16'));
  await sh(commands("echo 'options"));
  await sh(commands('modprobe --remove'));
  t.equal(await sh('cat /sys/module/virtio_balloon/parameters/cold_mib'), '32');

  await sh(commands('apt-get purge'));
  t.match(await sh('modinfo --field filename virtio_balloon'), KERNELS);
  await serves(daemon, "the kernel's", 64);
  t.notMatch((await guest.sh('dmesg')).output, COMPLAINTS, 'no complaint');
});

/** A newer kernel, as an upgrade brings it. */
const UPGRADE = `sed 's/ trixie main/ trixie-backports main/' /etc/apt/sources.list >/etc/apt/sources.list.d/backports.list
apt-get update -qq
${APT} -t trixie-backports linux-image-cloud-amd64`;
const newest = (tree: DebianGuest): string => {
  const release = tree.kernels.at(-1) ?? '';
  if (release === kernel) throw new Error('Debian has no newer kernel in backports');
  return release;
};

await t.test('a newer kernel that comes with its headers has it', async (t) => {
  const tree = new DebianGuest(t, folder, installed);
  tree.sh(UPGRADE);
  t.match(moduleOf(tree, newest(tree)), OURS);
  const { daemon } = await booted(t, tree, newest(tree));
  await serves(daemon, 'ours', 32);
});

await t.test("a newer kernel without headers has the kernel's own", (t) => {
  const tree = new DebianGuest(t, folder, installed);
  tree.sh(`apt-get purge --yes 'linux-headers-*cloud*'\n${UPGRADE}`);
  t.match(moduleOf(tree, newest(tree)), KERNELS);
  t.ok(existsSync(join(tree.path, `boot/initrd.img-${newest(tree)}`)), 'and boots');
  t.end();
});

await t.test(
  'a newer kernel for which it cannot be built is not set up before the driver goes',
  async (t) => {
    const tree = new DebianGuest(t, folder, installed);
    tree.sh(`${BREAK} /usr/src/virtio-balloon-${version}/balloon.c`);
    t.match(tree.sh(`${UPGRADE} || true`), /Bad return status for module build/);
    const release = newest(tree);
    t.notOk(existsSync(join(tree.path, `boot/initrd.img-${release}`)));
    t.match(moduleOf(tree, kernel), OURS, 'the kernel of before goes on with it');
    tree.sh(`apt-get purge --yes ${PACKAGE}`);
    t.ok(existsSync(join(tree.path, `boot/initrd.img-${release}`)), 'as the page says');
    t.match(moduleOf(tree, release), KERNELS);
    t.equal(tree.sh("dpkg-query --show --showformat '${db:Status-Status}\\n' | sort -u"), 'installed');
    const { daemon } = await booted(t, tree, release);
    await serves(daemon, "the kernel's", 32);
  },
);

await t.test('a kernel that wants signatures refuses it, and then there is no driver', async (t) => {
  const tree = new DebianGuest(t, folder, installed);
  tree.sh(`apt-get purge --yes ${PACKAGE}\n${commands(`${APT} openssl`)}\n${commands(`${APT} ./${DEB}`)}`);
  t.match(tree.sh(`modinfo --set-version ${kernel} --field signer virtio_balloon`), /DKMS/);
  t.ok(existsSync(join(tree.path, 'var/lib/dkms/mok.pub')));
  const { guest } = await booted(t, tree, kernel, ['module.sig_enforce=1']);
  const { code, output } = await guest.sh('modprobe virtio_balloon');
  t.not(code, 0);
  t.match(output, 'Key was rejected by service');
  t.notMatch((await guest.sh('cat /proc/modules')).output, /^virtio_balloon/m);
});

t.same(
  [...unused].map(({ text }) => text),
  [],
  'all blocks of the page were run',
);
