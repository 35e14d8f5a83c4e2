// The Debian package on a Debian host with systemd and libvirt, where three domains run that nobody changes: installed, told of libvirt by
// the lines of docs/adopting.md, and what it then says of the domains is compared with libvirt's own word.
// Takes minutes and needs root, so it is run by name: npm test -- out/test/e2e/deb-libvirt.check.js
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { eventually } from '../support/deadline.js';
import { MIB } from '../support/e2e.js';
import { HostVm, ROOT, WAIT } from '../support/host-lab/host-vm.js';
import { ensureLab } from '../support/lab/lab.js';
import { domainXml, LOAD_DRIVER, REST } from '../support/libvirt-host.js';

t.setTimeout(0);

const PACKAGES = ['apt', 'libvirt-daemon-system', 'libvirt-clients', 'qemu-system-x86', 'polkitd', 'dbus'];
const NAMES = ['web-1', 'web-2', 'db-1'];
const MEMORY_MIB = 160;
const SLACK = 4 * MIB;

const page = readFileSync(join(ROOT, 'docs/adopting.md'), 'utf8');
const [, lines = ''] = /^## Adopt the domains of libvirt$[^]*?^```sh\n([^]*?)^```$/m.exec(page) ?? [];
const [deb = ''] = execFileSync('sh', ['scripts/deb'], { cwd: ROOT, encoding: 'utf8' }).split('\n');
const { kernel, initramfs } = await ensureLab();
const host = await HostVm.boot(
  (stage) => {
    mkdirSync(join(stage, 'opt/lab'), { recursive: true });
    cpSync(join(ROOT, deb), join(stage, 'opt/balloond.deb'));
    cpSync(kernel, join(stage, 'opt/lab/vmlinux'));
    cpSync(initramfs, join(stage, 'opt/lab/initramfs.cpio'));
    for (const name of NAMES)
      writeFileSync(
        join(stage, `opt/lab/${name}.xml`),
        domainXml(name, `${LOAD_DRIVER}; ${REST}`, { memoryMib: MEMORY_MIB }),
      );
    return Promise.resolve();
  },
  { packages: [...PACKAGES, 'libvirt-dbus'], memoryMib: 3072 },
);
t.teardown(() => host.close());
await host.unpack();

const memstat = async (name: string, field: string): Promise<number> => {
  const said = await host.ok(`virsh dommemstat ${name}`);
  return Number(new RegExp(`^${field} (\\d+)`, 'm').exec(said)?.[1] ?? NaN) * 1024;
};
const processes = (): Promise<string> =>
  host.ok(NAMES.map((name) => `cat /run/libvirt/qemu/${name}.pid; echo`).join(';'));

void t.test('three domains of a host that knows nothing of balloond', async (t) => {
  await host.ok('systemctl start libvirtd.service');
  for (const name of NAMES) await host.ok(`virsh define /opt/lab/${name}.xml && virsh start ${name}`);
  // Their guests are emulated by an emulated host, and need minutes until their drivers send statistics.
  for (const name of NAMES) while (Number.isNaN(await memstat(name, 'unused'))) await sleep(5000);
  t.equal((await processes()).split('\n').length, NAMES.length);
});

void t.test('the package is installed, told of libvirt, and knows the domains', async (t) => {
  const before = await processes();
  const begun = performance.now();
  await host.ok(
    'DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends /opt/balloond.deb 2>&1',
  );
  // The packages that the page names are there, and this host has no network.
  const [, ours = ''] = /(echo [^]*)$/.exec(lines) ?? [];
  t.match(ours, /\[libvirt\][^]*balloonctl list/);
  let listed = '';
  await eventually(
    async () =>
      (listed = await host.ok(ours)).split('\n').filter((line) => / running /.test(line)).length ===
      NAMES.length,
    () => `they are listed: ${listed}`,
    1000,
  );
  const shown = await host.ok('balloonctl policy show');
  for (const name of NAMES) t.match(await host.ok(`balloonctl policy explain ${name}`), /^now: /m);
  t.comment(
    `${((performance.now() - begun) / 1000).toFixed(0)} s on this emulated host\n${listed}\n${shown}`,
  );
  t.equal(await processes(), before, 'no VM was restarted');
  t.equal(await host.service('User'), 'balloond');
});

void t.test('sizes are those of libvirt, and an order is one of libvirt', async (t) => {
  for (const name of NAMES) {
    const vm = await host.json<VmView>(`balloonctl --json show ${name}`);
    t.match(vm, { kind: 'libvirt', state: 'running', ramBytes: MEMORY_MIB * MIB, verdict: null });
    // libvirt counts the files of QEMU's program, too.
    const rss = await memstat(name, 'rss');
    t.ok(
      vm.memory.allocatedBytes > rss / 2 && vm.memory.allocatedBytes < rss,
      `${vm.memory.allocatedBytes} of ${rss}`,
    );
    const free = vm.stats?.['VIRTIO_BALLOON_S_MEMFREE'] ?? 0;
    const unused = await memstat(name, 'unused');
    t.ok(Math.abs(free - unused) < SLACK, `${free} and ${unused} are free`);
  }
  await host.ok(`balloonctl set web-1 --memory 112M ${WAIT}`);
  t.equal(await memstat('web-1', 'actual'), 112 * MIB);
  t.match(await host.ok('balloonctl limit web-1 --high 512M'), / high 512 MiB/);
  const { orders } = await host.json<VmView>('balloonctl --json show web-1');
  t.equal(orders.length, 2);
});

void t.test('libvirtd is restarted, and so is balloond', async (t) => {
  const before = await processes();
  for (const unit of ['libvirtd', 'balloond']) {
    await host.ok(`systemctl restart ${unit}.service`);
    await eventually(
      async () => (await host.json<VmView>('balloonctl --json show web-1')).balloon.actualBytes === 48 * MIB,
      () => `web-1 is there again after ${unit}`,
      1000,
    );
    await host.ok(`balloonctl set db-1 --balloon ${unit === 'libvirtd' ? 16 : 17}M ${WAIT}`);
  }
  t.equal(await memstat('db-1', 'actual'), (MEMORY_MIB - 17) * MIB);
  t.equal(await processes(), before, 'no VM was restarted');
  t.equal(
    await host.ok('balloonctl events --level warn --no-headers 2>/dev/null | grep -v "^note" || true'),
    '',
  );
});
