// What docs/libvirt.md tells, done with Debian 13's libvirt (LIBVIRT=backports: with that of its backports): a domain is defined and started, and its balloon used. QEMU and
// the kernel are the lab's, without KVM; neither AppArmor nor SELinux confines it. Takes a minute or two and needs root,
// so it is run by name: npm test -- out/test/e2e/libvirt.check.js
import { chmodSync, chownSync, readdirSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import type { Finding } from '../../src/control/cli/finding.js';
import { GIB, MIB, startDaemon } from '../support/e2e.js';
import { reserveHugePages } from '../support/huge-pages.js';
import { ensureLab } from '../support/lab/lab.js';
import { memfdAllocatedBytes } from '../support/lab/memfd-blocks.js';
import { IS_BACKPORTS, LibvirtHost } from '../support/libvirt-host.js';
import { commandsOf } from '../docs/commands.js';
import { invocationsIn } from '../docs/invocations.js';
import { readPage } from '../docs/page.js';

t.setTimeout(0);

const SOCKET = '/run/balloond/balloond.sock';
const DOMAIN = '/run/balloond/domain.xml';
const START_MS = 120_000;
const FILLED_MIB = 1500;
/** The first process touches memory, gives it back to its kernel, and only then loads the balloon's driver. */
const GUEST = [
  ...['mount -t devtmpfs dev /dev', 'mount -t ramfs ramfs /tmp'],
  ...[`dd if=/dev/zero of=/tmp/full bs=1M count=${FILLED_MIB}`, 'rm /tmp/full', 'insmod /virtio_balloon.ko'],
  'exec sleep 1000000',
].join('; ');
const SMALL_GUEST = 'mount -t devtmpfs dev /dev; insmod /virtio_balloon.ko; exec sleep 1000000';

// Without reporting, so that what comes back to the host is the balloon's doing. Such a device has three queues.
const daemon = await startDaemon(t, {
  config: `[[socket]]
path = "{folder}/balloond.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ"]
`,
});
chmodSync(daemon.folder, 0o755);
const lab = await ensureLab();
const host = await LibvirtHost.start(daemon.folder, dirname(lab.qemu));
t.teardown(() => host.close());
const printed = await daemon.ok(
  ...['qemu-args', '--for', 'libvirt', '--name', 'web-1', '--memory', '2G', '--socket-path', SOCKET],
);

/** What is printed, with the lab's guest, and without KVM and reporting. */
function domain(emulator = '/opt/lab/qemu', init = GUEST): string {
  const guest =
    '<kernel>/opt/lab/vmlinux</kernel><initrd>/opt/lab/initramfs.cpio</initrd>' +
    `<cmdline>quiet rdinit=/bin/sh -- -c "${init}"</cmdline>`;
  return printed
    .replace("<domain type='kvm'", "<domain type='qemu'")
    .replace('"num_vqs":7', '"num_vqs":3')
    .replace('</os>', `${guest}</os>`)
    .replace('<devices>', `<devices><emulator>${emulator}</emulator>`);
}

/** Commands of the page's block that has this one. */
function shown(first: string): string[] {
  const block = readPage('docs/libvirt.md').blocks.find(({ text }) => text.startsWith(first));
  if (block === undefined) throw new Error(`docs/libvirt.md has no block that begins with ${first}`);
  return commandsOf(block).map(({ text }) => text);
}

/** What doctor says of the domain. */
async function found(check: string): Promise<Finding | undefined> {
  const { stdout } = await daemon.ctl('--json', 'doctor');
  return (JSON.parse(stdout) as Finding[]).find((one) => one.subject === 'web-1' && one.check === check);
}

async function destroy(): Promise<void> {
  await host.ok('virsh destroy web-1');
  for (let waited = 0; (await daemon.list()).length > 0; waited++) {
    if (waited > 100) throw new Error('the VM is still there');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function define(xml: string): Promise<void> {
  writeFileSync(join(daemon.folder, 'domain.xml'), xml);
  await host.sh('virsh undefine web-1');
  await host.ok(`virt-xml-validate ${DOMAIN} && virsh define ${DOMAIN}`);
}

void t.test('the XML is valid as it is printed', async (t) => {
  t.comment(await host.ok('virsh version'));
  writeFileSync(join(daemon.folder, 'printed.xml'), printed);
  t.match(await host.ok('virt-xml-validate /run/balloond/printed.xml'), 'validates');
  await define(domain());
  t.equal((await host.ok('virsh dumpxml web-1')).match(/<qemu:arg/g)?.length, 4);
});

void t.test('who left a step out is told what the page says', async (t) => {
  await define(domain());
  t.match(await host.sh('virsh start web-1'), {
    code: 1,
    text: `Failed to connect to '${SOCKET}': Permission denied`,
  });
  await host.ok('groupadd balloond-vmm');
  for (const command of shown('usermod')) await host.ok(command);
  const [, , group] = (await host.ok('getent group balloond-vmm')).split(':');
  chownSync(join(daemon.folder, 'balloond.sock'), 0, Number(group));

  const said = [];
  for (const command of shown('mkdir')) said.push(await host.ok(command));
  t.match(said.at(-1), 'include if exists <local/abstractions/libvirt-qemu>');

  // Debian 13's own, which the QEMU of its backports takes the place of.
  if (IS_BACKPORTS) return;
  await define(domain('/usr/bin/qemu-system-x86_64'));
  t.match(await host.sh('virsh start web-1'), {
    code: 1,
    text: "'vhost-user-test-device-pci' is not a valid device model name",
  });
});

void t.test('started, it gives memory and takes it back', async (t) => {
  await define(domain());
  await host.ok('virsh start web-1');
  const { pid, ramBytes } = await daemon.until('web-1', (vm) => vm.state === 'running', 'it runs', START_MS);
  t.equal(ramBytes, 2 * GIB);
  t.match(await daemon.ok('list'), /^web-1 +running /m);
  // Those that do not depend on how busy this machine is.
  for (const name of ['VMM', 'memory', 'queues']) t.match(await found(name), { level: 'ok' }, name);
  t.match((await found('huge pages'))?.found, /^never: of memory-backend-memfd, 2 GiB are mapped 4 KiB off/);
  const full = memfdAllocatedBytes(pid);
  t.ok(full > FILLED_MIB * MIB, `${full} bytes touched`);

  await daemon.ok('set', 'web-1', '--memory', '1G', '--wait', '--timeout', '120');
  const low = memfdAllocatedBytes(pid);
  t.ok(low <= GIB && full - low > 400 * MIB, `the host's blocks fell from ${full} to ${low}`);
  const taken = await daemon.stats('web-1');
  await daemon.ok('set', 'web-1', '--balloon', '0', '--wait', '--timeout', '120');
  const given = await daemon.stats('web-1');
  const back = (given['VIRTIO_BALLOON_S_MEMFREE'] ?? 0) - (taken['VIRTIO_BALLOON_S_MEMFREE'] ?? 0);
  // Up to an eighth of memory may rest in the processor's own free list, which MEMFREE leaves out.
  t.ok(back > 0.7 * GIB, `the guest has ${back} more`);

  for (const command of shown('balloonctl list')) {
    const [{ args } = { args: [] }] = invocationsIn(command);
    // Whether this machine has something to mend is not the page's.
    if (args[0] === 'doctor') await daemon.ctl(...args);
    else await daemon.ok(...args);
  }
});

void t.test('suspended, not saved, reset and destroyed by virsh', async (t) => {
  await host.ok('virsh suspend web-1');
  await daemon.until('web-1', ({ state }) => state === 'stopped', 'it stands still');
  await host.ok('virsh resume web-1');
  await daemon.until('web-1', ({ state }) => state === 'running', 'it goes on');
  t.match(await host.sh('virsh save web-1 /var/lib/libvirt/web-1.save'), {
    code: 1,
    text: 'non-migratable device',
  });
  await daemon.ok('set', 'web-1', '--memory', '1G', '--wait', '--timeout', '120');
  await host.ok('virsh reset web-1');
  await daemon.until('web-1', ({ balloon }) => balloon.actualBytes < GIB, 'the guest is another');
  await daemon.until(
    'web-1',
    ({ balloon }) => balloon.actualBytes === GIB,
    'its target is the same',
    START_MS,
  );
  await destroy();
  t.match(await host.ok('virsh domstate web-1'), 'shut off');
});

void t.test('both ways to huge pages', async (t) => {
  const small = domain('/opt/lab/qemu', SMALL_GUEST);
  const start = async (): Promise<number> => {
    await host.ok('virsh start web-1');
    return (await daemon.until('web-1', (vm) => vm.state === 'running', 'it runs', START_MS)).pid;
  };
  const lines = readPage('docs/libvirt.md').blocks.find(({ language }) => language === 'text')?.text ?? '';
  const own = small.replace('<qemu:commandline>', `<qemu:commandline>${lines}`);
  await define(own);
  const pid = await start();
  t.match((await found('huge pages'))?.found, /^(possible|none, by the policy of this host)/);
  const unused = readdirSync(`/proc/${pid}/fd`)
    .map((fd) => `/proc/${pid}/fd/${fd}`)
    .filter((path) => readlinkSync(path).startsWith('/memfd:memory-backend-memfd'));
  t.same([...new Set(unused.map((path) => statSync(path).blocks))], [0], "libvirt's memory has no page");
  await daemon.ok('set', 'web-1', '--memory', '1G', '--wait', '--timeout', '120');
  await destroy();

  await define(own.replace('"size":2147483648', '"size":1073741824'));
  t.match((await host.sh('virsh start web-1')).text, 'does not match the size of the memory backend');
  const cell = "<cpu><numa><cell id='0' cpus='0' memory='2097152' unit='KiB'/></numa></cpu>";
  await define(own.replace('</os>', `</os>${cell}`));
  t.match(
    (await host.sh('virsh start web-1')).text,
    "'-machine memory-backend' and '-numa memdev' properties are mutually exclusive",
  );

  t.ok(reserveHugePages(t, 300), 'the host has 300 huge pages to lend');
  await define(
    small
      .replace('>2048</memory>', '>512</memory>')
      .replace("<source type='memfd'/>", "<hugepages/><source type='memfd'/>"),
  );
  await start();
  t.match(await found('huge pages'), { level: 'ok', found: 'all memory is in pages of hugetlbfs' });
  await destroy();
});
