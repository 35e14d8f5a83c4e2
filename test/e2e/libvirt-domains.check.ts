// Domains that nobody changed, of Debian 13's libvirt and QEMU (LIBVIRT=backports: of its backports), adopted through libvirt-dbus as
// docs/adopting.md says. Without KVM; it takes some minutes and needs root, so it is run by name: npm test -- out/test/e2e/libvirt-domains.check.js
import { copyFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { withBalloon, withoutBalloon } from '../../protocol/libvirt/enable.js';
import { libvirtWords } from '../../src/control/cli/qemu-args.js';
import { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { MIB } from '../support/e2e.js';
import { ensureLab } from '../support/lab/lab.js';
import { LibvirtHost, LOAD_DRIVER, REST } from '../support/libvirt-host.js';
import { temporaryFolder } from '../support/fleet.js';

t.setTimeout(0);

const PATIENCE_MS = 120_000;
const GUEST = `${LOAD_DRIVER}; ${REST}`;

const shared = temporaryFolder(t);
const lab = await ensureLab();
const host = await LibvirtHost.start(shared, dirname(lab.qemu));
t.teardown(() => host.close());

const memstat = (name: string, figure: string): Promise<number> => host.memstat(name, figure);

async function period(name: string): Promise<string> {
  const xml = await host.ok(`virsh dumpxml ${name}`);
  return /<stats period='(\d+)'\/>/.exec(xml)?.[1] ?? 'none';
}

function start(more = ''): Promise<DaemonProcess> {
  return DaemonProcess.start({ config: `[libvirt]\nbus = "${host.bus}"\n${more}` });
}

/** The messages of all events of that name. */
function told(daemon: DaemonProcess, name: string): string[] {
  const lines = daemon.log.split('\n').filter((line) => line.includes(`"event":"${name}"`));
  return lines.map((line) => (JSON.parse(line) as DaemonEvent).message);
}

const NAMES = ['web-1', 'web-2', 'db-1'];
for (const name of NAMES) await host.define(name, GUEST);
for (const name of NAMES) await host.ok(`virsh start ${name}`);
for (const name of NAMES) {
  await eventually(
    async () => (await memstat(name, 'last_update')) > 0,
    () => `${name} has its driver`,
  );
}

void t.test('three domains are found, explained, moved and let go of, and none is changed', async (t) => {
  const before = await host.ok('virsh dumpxml db-1');
  const begun = performance.now();
  const daemon = await start();
  t.teardown(() => daemon.stop());
  for (const name of NAMES) await daemon.until(name, ({ state }) => state === 'running', 'it is found');
  t.comment(`from the start of the daemon to three running VMs: ${Math.round(performance.now() - begun)} ms`);
  t.match(await daemon.ok('policy', 'explain', 'web-1'), /^web-1 \(bronze, .*\): observe/);
  t.match(await daemon.show('web-1'), { kind: 'libvirt', socket: null, ramBytes: 512 * MIB, verdict: null });
  t.match(await daemon.ok('show', 'web-1'), /^Over +libvirt$/m);

  const available = await memstat('web-1', 'available');
  await daemon.ok('set', 'web-1', '--memory', '300M', '--wait', '--timeout', '60');
  t.equal(await memstat('web-1', 'actual'), 300 * MIB, 'by the word of QEMU');
  await daemon.stats('web-1');
  t.equal(available - (await memstat('web-1', 'available')), 212 * MIB, 'by the word of the guest');
  // QEMU tells libvirt of its balloon once a second.
  await eventually(
    async () => /Used memory: +307200 KiB/.test(await host.ok('virsh dominfo web-1')),
    () => 'by the word of libvirt',
  );
  t.match(
    await host.ok('virsh dumpxml --inactive web-1'),
    />524288<\/currentMemory>/,
    'its configuration is as it was',
  );
  t.equal(await period('web-1'), '10');
  await daemon.stop();
  t.equal(await period('web-1'), 'none', 'the period is put back');
  t.equal(await host.ok('virsh dumpxml db-1'), before);
  await host.ok('virsh setmem web-1 512M --live');
});

void t.test(
  'paused, reset, saved, renamed, without a balloon, and unknown to libvirt for a while',
  async (t) => {
    const daemon = await start();
    t.teardown(() => daemon.stop());
    await daemon.ok('set', 'web-1', '--memory', '400M', '--wait', '--timeout', '60').catch(async () => {
      await daemon.until('web-1', ({ state }) => state === 'running', 'it is found');
      await daemon.ok('set', 'web-1', '--memory', '400M', '--wait', '--timeout', '60');
    });
    await host.ok('virsh suspend web-1');
    await daemon.until('web-1', ({ state }) => state === 'stopped', 'it is paused');
    await host.ok('virsh resume web-1');
    await daemon.until('web-1', ({ state }) => state === 'running', 'it goes on');
    await host.ok('virsh reset web-1');
    await daemon.until('web-1', ({ state }) => state !== 'running', 'its guest is another');
    await daemon.until(
      'web-1',
      ({ balloon }) => balloon.actualBytes === 112 * MIB,
      'at its target',
      PATIENCE_MS,
    );

    await host.ok('virsh managedsave web-1');
    await eventually(
      async () => (await daemon.list()).every(({ name }) => name !== 'web-1'),
      () => 'it is saved',
    );
    await host.ok('virsh start web-1');
    await daemon.until('web-1', ({ balloon }) => balloon.actualBytes === 112 * MIB, 'it is back');

    await host.ok('virsh destroy web-2 && virsh domrename web-2 web-9 && virsh start web-9');
    await daemon.until('web-9', ({ state }) => state === 'running', 'by its other name', PATIENCE_MS);

    await host.define('bare', GUEST, "<memballoon model='none'/>");
    await host.ok('virsh start bare');
    await eventually(
      () => told(daemon, 'adopt-failed').length > 0,
      () => 'it is said',
    );
    t.match(told(daemon, 'adopt-failed'), [
      /^the domain bare cannot be adopted, since it has no balloon of QEMU/,
    ]);

    await host.ok('kill $(cat /run/libvirtd.pid)');
    await sleep(2000);
    t.equal((await daemon.show('db-1')).state, 'running', 'VMs go on without libvirtd');
    await daemon.ok('set', 'db-1', '--memory', '450M');
    for (const name of ['db-1', 'web-9'])
      await daemon.until(name, ({ diagnosis }) => diagnosis?.code === 'libvirt-away', 'it says so');
    t.match(await daemon.ok('list'), /^db-1: libvirt is away, .*: start (libvirtd|virtqemud) /m);
    await sleep(11_000);
    await host.ok('libvirtd --daemon');
    await daemon.until('db-1', ({ diagnosis }) => diagnosis?.code !== 'libvirt-away', 'libvirtd is back');
    t.equal((await daemon.show('db-1')).verdict, null, 'and nothing false is said of the guest');
    t.equal((await daemon.show('web-9')).verdict, null);
    await daemon.until('db-1', ({ balloon }) => balloon.actualBytes === 62 * MIB, 'it was told again');
    t.same(told(daemon, 'qmp-failed'), []);
    await daemon.ok('adopt', '--release', 'web-9');
    t.notMatch(await daemon.ok('list'), /^web-9 /m);
    t.match(
      await daemon.ok('orders'),
      /^web-9, not connected\n +the daemon leaves the domain of libvirt alone/m,
    );
    t.match(await daemon.ctl('set', 'web-9', '--memory', '400M'), {
      code: 1,
      stderr: /VM "web-9" was released by an operator: run balloonctl adopt libvirt:web-9/,
    });
    t.match(await daemon.ok('adopt', 'web-9'), /^web-9: adopted over libvirt/);
    await eventually(
      async () => (await daemon.ctl('set', 'db-1', '--memory', '400M', '--wait')).code === 0,
      () => 'db-1 is moved again',
    );
    t.equal(await memstat('db-1', 'actual'), 400 * MIB);
    await host.ok(
      'kill -KILL $(for p in /proc/[0-9]*; do grep -qx libvirt-dbus $p/comm && basename $p; done)',
    );
    await daemon.ok('set', 'db-1', '--balloon', '0', '--wait', '--timeout', '60');
    t.equal(await memstat('db-1', 'actual'), 512 * MIB);
    // Its events come again, without a call for that domain.
    await sleep(11_000);
    await host.ok('virsh suspend db-1');
    await daemon.until('db-1', ({ state }) => state === 'stopped', 'events come again');
    await host.ok('virsh resume db-1');
    t.match(await daemon.ok('list'), /^web-1 /m);
  },
);

void t.test('a guest that sleeps', async (t) => {
  const daemon = await start();
  t.teardown(() => daemon.stop());
  await host.define(
    'bed',
    `${LOAD_DRIVER}; mkdir -p /sys; mount -t sysfs s /sys; sleep 15; echo mem > /sys/power/state; ${REST}`,
  );
  await host.ok('virsh start bed');
  await daemon.until('bed', ({ state }) => state === 'running', 'its driver runs', PATIENCE_MS);
  await daemon.until('bed', ({ state }) => state === 'stopped', 'it sleeps', PATIENCE_MS);
  t.match(await host.ok('virsh domstate bed'), /^pmsuspended/);
  await daemon.ok('set', 'bed', '--memory', '400M');
  t.match((await daemon.show('bed')).verdict, /virsh dompmwakeup/);
  t.not((await host.sh('virsh resume bed')).code, 0, 'that is no way to wake it');
  await host.ok('virsh dompmwakeup bed');
  await daemon.until('bed', ({ state }) => state !== 'stopped', 'it is awake');
  await daemon.until('bed', ({ balloon }) => balloon.actualBytes === 112 * MIB, 'at its target', PATIENCE_MS);
  await host.ok('virsh destroy bed');
});

void t.test('a QEMU that hangs, and a bus that ends', async (t) => {
  const daemon = await start();
  t.teardown(() => daemon.stop());
  const { pid } = await daemon.until('web-1', ({ state }) => state === 'running', 'it is found');
  await daemon.until('db-1', ({ state }) => state === 'running', 'it is found');
  process.kill(pid, 'SIGSTOP');
  await daemon.ok('set', 'web-1', '--memory', '450M');
  await daemon.ok('set', 'db-1', '--memory', '420M', '--wait', '--timeout', '60');
  t.equal((await daemon.show('web-1')).balloon.actualBytes, 112 * MIB, 'it hangs');
  await daemon.until('web-1', ({ diagnosis }) => diagnosis?.code === 'qmp-unanswered', 'it is said');
  await daemon.ok('set', 'db-1', '--balloon', '0', '--wait', '--timeout', '60');
  process.kill(pid, 'SIGCONT');
  await daemon.ok('set', 'web-1', '--memory', '440M', '--wait', '--timeout', '60');
  t.equal(await memstat('web-1', 'actual'), 440 * MIB);

  await host.ok('kill $(cat /run/dbus/pid); rm -f /run/dbus/pid');
  await eventually(
    async () => (await daemon.list()).length === 0,
    () => 'the VMs leave',
  );
  t.match(told(daemon, 'libvirt-failed'), [/the daemon cannot look at the domains of libvirt, since /]);
  // libvirtd ends with the bus.
  await host.ok('dbus-daemon --system --fork; libvirtd --daemon');
  await host.ok('setsid /usr/lib/polkit-1/polkitd --no-debug </dev/null >/dev/null 2>&1 &');
  await daemon.until('db-1', ({ state }) => state === 'running', 'they come again', PATIENCE_MS);
  await daemon.ok('set', 'web-1', '--balloon', '0', '--wait', '--timeout', '60');
});

void t.test('the bus lets the user balloond do what the daemon does, and nothing else', async (t) => {
  copyFileSync('deploy/dbus/balloond.conf', join(shared, 'balloond.conf'));
  await host.ok('useradd --system balloond; cp /run/balloond/balloond.conf /usr/share/dbus-1/system.d/');
  await host.ok(
    'dbus-send --system --dest=org.freedesktop.DBus / org.freedesktop.DBus.ReloadConfig; sleep 1',
  );
  const send = 'setpriv --reuid=balloond --clear-groups dbus-send --system --print-reply --dest=org.libvirt';
  const list = await host.ok(`${send} /org/libvirt/QEMU org.libvirt.Connect.ListDomains uint32:1`);
  const [object = ''] = /\/org\/libvirt\/QEMU\/domain\/\w+/.exec(list) ?? [];
  for (const call of [
    'org.libvirt.Domain.GetXMLDesc uint32:0',
    'org.libvirt.Domain.MemoryStats uint32:0',
    'org.libvirt.Domain.GetStats uint32:5 uint32:0',
    'org.libvirt.Domain.SetMemory uint64:524288 uint32:1',
    'org.libvirt.Domain.SetMemoryStatsPeriod int32:0 uint32:1',
  ]) {
    const said = await host.sh(`${send} ${object} ${call}`);
    t.notMatch(said.text, /AccessDenied/, call);
  }
  for (const call of ['Destroy uint32:0', 'Suspend', 'Undefine uint32:0', 'SetVcpus uint32:1 uint32:1']) {
    const said = await host.sh(`${send} ${object} org.libvirt.Domain.${call}`);
    t.match(said, { code: 1, text: /AccessDenied/ }, call);
  }
  t.match(
    (await host.sh(`${send} /org/libvirt/QEMU org.libvirt.Connect.DomainDefineXML string:x`)).text,
    /AccessDenied/,
  );
});

void t.test(
  "a domain gets balloond's own device, and QEMU's balloon again, by libvirt's own schema",
  async (t) => {
    const words = libvirtWords('/run/balloond/balloond.sock');
    const before = await host.ok('virsh dumpxml --inactive web-9');
    for (const xml of [withBalloon(before, words), withoutBalloon(withBalloon(before, words))]) {
      writeFileSync(join(shared, 'changed.xml'), xml);
      t.match(await host.ok('virt-xml-validate /run/balloond/changed.xml domain'), /validates/);
      await host.ok('virsh define --validate --file /run/balloond/changed.xml');
      const after = await host.ok('virsh dumpxml --inactive web-9');
      t.equal(
        after.match(/<qemu:arg /g)?.length ?? 0,
        xml.match(/<qemu:arg /g)?.length ?? 0,
        'libvirt takes all of it',
      );
    }
    const element = / *<memballoon [^]*(?:<\/memballoon>|\/>)\n/;
    const after = await host.ok('virsh dumpxml --inactive web-9');
    t.equal(after.replace(element, ''), before.replace(element, ''), 'all else is as it was');
  },
);
