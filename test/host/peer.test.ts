import fc from 'fast-check';
import t from 'tap';
import {
  cleanName,
  mapsPrivately,
  nameFromCgroup,
  nameFromCommandLine,
  peerName,
  driverObstacle,
  wellFormed,
} from '../../src/host/peer.js';

void t.test("QEMU's name of its guest", (t) => {
  const name = (...words: string[]): string | null => nameFromCommandLine(words.join('\0'));
  t.equal(name('qemu', '-name', 'web-1', '-m', '1G'), 'web-1');
  t.equal(name('qemu', '-name', 'guest=web-1,process=qemu:web,debug-threads=on'), 'web-1');
  t.equal(name('qemu', '-name', 'debug-threads=on,guest=a,,b'), 'a_b');
  t.equal(name('qemu', '-name', 'debug-threads=on'), null);
  t.equal(name('qemu', '-name'), null);
  t.equal(name('qemu'), null);
  t.equal(nameFromCommandLine(null), null);
  t.end();
});

void t.test("what keeps a guest's driver from starting", (t) => {
  const obstacle = (program: string, ...devices: string[]): string | null =>
    driverObstacle([program, '-m', '1G', ...devices.flatMap((each) => ['-device', each])].join('\0'));
  const reports = (...devices: string[]): boolean => obstacle('qemu', ...devices) === 'own-balloon';
  const libvirt = { driver: 'virtio-balloon-pci', id: 'balloon0', bus: 'pci.4', addr: '0x0' };
  const ours = 'vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=5';
  t.ok(reports(ours, 'virtio-balloon-pci,id=balloon0,free-page-reporting=on'));
  t.ok(reports('virtio-balloon,free-page-reporting', ours));
  t.ok(reports(JSON.stringify({ ...libvirt, 'free-page-reporting': true })));
  t.notOk(reports(JSON.stringify(libvirt)));
  t.notOk(reports('virtio-balloon-pci,free-page-reporting=off', ours));
  t.notOk(reports(ours, 'virtio-blk-pci,id=virtio-balloon'));
  t.equal(obstacle('/usr/bin/qemu-system-s390x', ours), 's390x');
  t.equal(obstacle('qemu-system-s390x', ours), 's390x');
  t.equal(obstacle('/usr/bin/qemu-system-x86_64', 'file=/qemu-system-s390x', ours), null);
  t.equal(driverObstacle(null), null);
  t.end();
});

void t.test('the machine of a systemd scope', (t) => {
  t.equal(
    nameFromCgroup('0::/machine.slice/machine-qemu\\x2d3\\x2dweb\\x2d1.scope/libvirt/emulator\n'),
    'web-1',
  );
  t.equal(nameFromCgroup('0::/machine.slice/machine-plain.scope\n'), 'plain');
  t.equal(nameFromCgroup('0::/user.slice\n'), null);
  t.end();
});

void t.test('names are made safe and short', (t) => {
  t.equal(cleanName('a/b\u001b[31m'), 'a_b__31m');
  t.equal(cleanName('x'.repeat(500))?.length, 64);
  t.equal(cleanName(''), null);
  t.equal(cleanName(`${'x'.repeat(63)}𝒳y`), 'x'.repeat(63), 'no half of a character');
  t.equal(cleanName(`${'x'.repeat(62)}𝒳y`), `${'x'.repeat(62)}𝒳`);
  t.equal(wellFormed('a\ud835'), 'a');
  t.equal(wellFormed('\ud835'), '_');
  t.equal(cleanName('\ud835x'), '_x');
  for (const dots of ['.', '..']) t.equal(cleanName(dots), '_', 'no folder');
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 80 }), (name) => {
      const clean = cleanName(name);
      if (clean !== null) decodeURIComponent(encodeURIComponent(clean));
    }),
  );
  t.end();
});

void t.test('a process that is gone has no name and no mappings', (t) => {
  t.equal(peerName(2 ** 22 + 1), null);
  t.equal(mapsPrivately(2 ** 22 + 1, 0x7f0000000000n), null);
  t.equal(mapsPrivately(process.pid, 0n), null, 'nothing is mapped there');
  t.end();
});
