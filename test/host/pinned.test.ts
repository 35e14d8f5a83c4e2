import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { findPinning } from '../../src/host/pinned.js';
import { temporaryFolder } from '../support/fleet.js';
import { PINNING_FILE, PinningVmm } from '../support/pinning-vmm.js';

/** What is found in a /proc whose process 7 has these files open. */
function found(t: Test, ...links: string[]): string | null {
  return foundWhere(t, { misc: '196 vfio\n', devices: '' }, ...links);
}

/** The same of a kernel that lists these drivers. */
function foundWhere(t: Test, lists: Record<string, string>, ...links: string[]): string | null {
  const proc = temporaryFolder(t);
  for (const [name, text] of Object.entries(lists)) writeFileSync(join(proc, name), text);
  mkdirSync(join(proc, '7/fd'), { recursive: true });
  for (const [fd, target] of links.entries()) symlinkSync(target, join(proc, '7/fd', String(fd)));
  return findPinning(7, proc).file;
}

void t.test('files of devices that reach guest memory', (t) => {
  for (const name of [
    '/dev/vfio/vfio',
    '/dev/vfio/12',
    '/dev/vfio/devices/vfio0',
    '/dev/vhost-vdpa-0',
    '/dev/iommu',
    'anon_inode:[vfio-device]',
    'anon_inode:kvm-vfio',
  ]) {
    t.equal(found(t, 'socket:[1]', name, '/dev/kvm'), name);
  }
  t.end();
});

void t.test('files of others', (t) => {
  const others = [
    '/dev/kvm',
    '/dev/vhost-net',
    '/dev/net/tun',
    'anon_inode:kvm-vcpu:0',
    'anon_inode:[eventfd]',
  ];
  t.equal(found(t, ...others, '/memfd:pc.ram (deleted)', '/srv/dev/vfio/12', '/tmp/anon_inode:[vfio]'), null);
  t.equal(found(t), null);
  t.same(findPinning(process.pid), { file: null, unknown: null });
  t.end();
});

void t.test('nothing is looked for on a kernel that has no driver for it', (t) => {
  const misc = '232 kvm\n';
  const devices = 'Character devices:\n  1 mem\n246 macvtap\n';
  const where = (lists: Record<string, string>) => foundWhere(t, lists, '/dev/vfio/12');
  t.equal(where({ misc, devices }), null);
  t.equal(where({ misc: `${misc}196 vfio\n`, devices }), '/dev/vfio/12');
  t.equal(where({ misc: `${misc}124 iommu\n`, devices }), '/dev/vfio/12');
  for (const line of ['243 vfio\n', '242 vfio-dev\n', ' 99 vhost-vdpa\n'])
    t.equal(where({ misc, devices: devices + line }), '/dev/vfio/12', line);
  t.equal(where({}), '/dev/vfio/12', 'it does not say');
  t.equal(where({ misc }), '/dev/vfio/12', 'it does not say all');
  t.end();
});

void t.test('a process that is gone or may not be looked at', (t) => {
  t.same(findPinning(7, temporaryFolder(t)), { file: null, unknown: 'ENOENT' });
  t.same(findPinning(7, '/dev/null'), { file: null, unknown: 'ENOTDIR' });
  t.end();
});

void t.test('a process that has such a file open, and closes it', async (t) => {
  const vmm = await PinningVmm.start(t);
  if (vmm === null) return;
  const find = () => findPinning(vmm.pid, vmm.tree.paths.proc);
  t.same(find(), { file: null, unknown: null });
  await vmm.pin();
  t.same(find(), { file: PINNING_FILE, unknown: null });
  await vmm.unpin();
  t.same(find(), { file: null, unknown: null });
});
