import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { UsageError } from '../../../src/control/cli/exit.js';
import {
  libvirtXml,
  qemuArguments,
  renderQemuArguments,
  vmmArguments,
} from '../../../src/control/cli/qemu-args.js';

const GIB = 1024 ** 3;

void t.test('the arguments', (t) => {
  t.strictSame(qemuArguments({ memoryBytes: 2 * GIB, name: undefined, socketPath: '/run/b.sock' }), [
    '-m',
    '2G',
    '-object',
    'memory-backend-ram,id=balloon-mem,size=2G,share=on',
    '-machine',
    'memory-backend=balloon-mem',
    '-chardev',
    'socket,id=balloon,path=/run/b.sock',
    '-device',
    'vhost-user-test-device-pci,id=balloon,chardev=balloon,virtio-id=5,num_vqs=7,vq_size=256,config_size=44',
  ]);
  const named = qemuArguments({ memoryBytes: 1.5 * GIB, name: 'a,b', socketPath: '/run/a,b' });
  t.strictSame(named.slice(0, 4), ['-name', 'guest=a,,b', '-m', '1536M'], 'a comma is doubled');
  t.ok(named.includes('socket,id=balloon,path=/run/a,,b'));
  t.end();
});

void t.test('QEMU takes whole MiB only', (t) => {
  for (const memoryBytes of [0, 1, GIB + 4096]) {
    t.throws(() => qemuArguments({ memoryBytes, name: undefined, socketPath: '/x' }), UsageError);
  }
  t.end();
});

void t.test('a shell reads back what was meant', (t) => {
  const args = qemuArguments({ memoryBytes: GIB, name: `it's $HOME "x" \\`, socketPath: '/tmp/a b' });
  const script = `printf '%s\\0' ${renderQemuArguments(args)}`;
  const read = execFileSync('/bin/sh', ['-c', script], { encoding: 'utf8' });
  t.strictSame(read.split('\0').slice(0, -1), args);
  t.end();
});

void t.test('other VMMs', (t) => {
  const wanted = { memoryBytes: 2 * GIB, name: undefined, socketPath: '/run/b.sock' };
  t.strictSame(vmmArguments('qemu', wanted), qemuArguments(wanted));
  t.match(vmmArguments('cloud-hypervisor', wanted), [
    '--memory',
    'size=2048M,shared=on',
    '--generic-vhost-user',
    // cloud-hypervisor 52 does not know device_type.
    'socket=/run/b.sock,virtio_id=5,queue_sizes=[256,256,256,256,256]',
  ]);
  // A switch takes no value: crosvm would take it for the path of the kernel.
  t.strictSame(vmmArguments('crosvm', wanted), [
    ...['--mem', 'size=2048', '--vhost-user', 'balloon,socket=/run/b.sock', '--no-balloon'],
  ]);
  for (const kind of ['cloud-hypervisor', 'crosvm'] as const)
    t.throws(() => vmmArguments(kind, { ...wanted, cacheSocketPath: '/c' }), /give --for qemu/);
  t.match(libvirtXml({ ...wanted, cacheSocketPath: '/c.sock' }), /path=\/c\.sock[^]*"virtio-id":13[^]*0x18/);
  t.end();
});

void t.test('a port for each device that is to be unplugged', (t) => {
  const balloon = { memoryBytes: GIB, name: undefined, socketPath: '/b', hotPlug: true };
  const wanted = { ...balloon, cacheSocketPath: '/c' };
  t.match(qemuArguments(wanted).slice(6), [
    ...['-chardev', 'socket,id=balloon,path=/b'],
    ...['-device', 'pcie-root-port,id=balloon-port,chassis=25'],
    ...['-device', /^vhost-user-test-device-pci,id=balloon,.*,bus=balloon-port$/],
    ...['-chardev', 'socket,id=cache-balloon,path=/c'],
    ...['-device', 'pcie-root-port,id=cache-balloon-port,chassis=24'],
    ...['-device', /^vhost-user-test-device-pci,id=cache-balloon,.*,bus=cache-balloon-port$/],
  ]);
  const devices = libvirtXml(wanted).match(/\{.*\}/g) ?? [];
  t.match(
    devices.map((device) => JSON.parse(device) as unknown),
    [
      { driver: 'pcie-root-port', id: 'balloon-port', addr: '0x19' },
      { id: 'balloon', bus: 'balloon-port', addr: undefined },
      { driver: 'pcie-root-port', id: 'cache-balloon-port', addr: '0x18' },
      { id: 'cache-balloon', bus: 'cache-balloon-port', addr: undefined },
    ],
  );
  for (const kind of ['cloud-hypervisor', 'crosvm'] as const)
    t.throws(() => vmmArguments(kind, balloon), /^--hot-plug: only QEMU/);
  t.end();
});

void t.test('the XML for libvirt is well-formed and says what QEMU is told', (t) => {
  const wanted = { memoryBytes: 2 * GIB, name: `a<'&">`, socketPath: "/run/it's" };
  const parsed = execFileSync(
    'python3',
    [
      '-c',
      `import sys, json, xml.etree.ElementTree as e
d = e.fromstring(sys.stdin.read())
q = '{http://libvirt.org/schemas/domain/qemu/1.0}'
print(json.dumps([d.find('name').text, d.find('memory').text, d.find('memoryBacking/access').get('mode'),
  [a.get('value') for a in d.iter(q + 'arg')]]))`,
    ],
    { input: libvirtXml(wanted), encoding: 'utf8' },
  );
  const [name, memory, access, qemuArgs] = JSON.parse(parsed) as [string, string, string, string[]];
  const [, socket, , device = ''] = qemuArgs;
  t.same([name, memory, access], [wanted.name, '2048', 'shared']);
  const told = qemuArguments(wanted);
  t.equal(socket, told.at(-3));
  const { driver, addr, ...properties } = JSON.parse(device) as Record<string, string | number>;
  const asOption = Object.entries(properties).map(([key, value]) => `${key}=${value}`);
  t.equal([driver, ...asOption].join(','), told.at(-1));
  t.equal(addr, '0x19');
  t.end();
});

void t.test('the pages show what is printed', (t) => {
  const repository = join(import.meta.dirname, '../../../..');
  const page = (name: string): string[] =>
    readFileSync(join(repository, 'docs', name), 'utf8')
      .split('\n')
      .map((line) => line.trim());
  const wanted = { memoryBytes: 2 * GIB, name: 'web-1', socketPath: '/run/balloond/balloond.sock' };
  const command = readFileSync(join(repository, 'README.md'), 'utf8').replaceAll(/ \\\n */g, ' ');
  t.match(command, `qemu-system-x86_64 ${qemuArguments(wanted).join(' ')} ...`);
  const own = /<(name|memory|os|type|\/os|devices|\/devices)\b/;
  const xml = libvirtXml(wanted)
    .split('\n')
    .filter((line) => !own.test(line));
  const rest = xml.map((line) => line.trim()).filter((line) => !page('libvirt.md').includes(line));
  t.same(rest, ['</domain>']);
  const ported = renderQemuArguments(qemuArguments({ ...wanted, hotPlug: true }))
    .split('\n')
    .slice(-2);
  t.same(
    ported.filter((line) => !page('migration.md').includes(line)),
    [],
    'docs/migration.md',
  );
  for (const kind of ['cloud-hypervisor', 'crosvm'] as const) {
    const lines = renderQemuArguments(vmmArguments(kind, wanted)).split('\n');
    t.same(
      lines.filter((line) => !page('other-vmms.md').includes(line)),
      [],
      kind,
    );
  }
  t.end();
});
