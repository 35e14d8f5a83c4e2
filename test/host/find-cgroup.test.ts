import t, { type Test } from 'tap';
import { findVmCgroup } from '../../src/host/find-cgroup.js';
import { HostTree } from '../support/host-tree.js';

const VMM = 7;

/** Where the VMM is found, and what it is given. */
function search(
  t: Test,
  cgroup: string,
  prepare: (tree: HostTree) => void = () => undefined,
  shared = false,
) {
  const tree = new HostTree(t);
  tree.process(VMM, cgroup);
  prepare(tree);
  return findVmCgroup(VMM, { paths: tree.paths, shared });
}

void t.test('the cgroup that is the VM', (t) => {
  const machine = '/machine.slice/machine-qemu\\x2d1\\x2dweb.scope';
  for (const [leaf, wanted] of [
    [`${machine}/libvirt/emulator`, machine],
    [`${machine}/libvirt/vcpu0`, machine],
    [`${machine}/libvirt`, machine],
    ['/machine/qemu-1-web.libvirt-qemu/libvirt/emulator', '/machine/qemu-1-web.libvirt-qemu'],
    ['/system.slice/web.service', '/system.slice/web.service'],
    ['/system.slice/web.service/payload', '/system.slice/web.service'],
    [
      '/user.slice/user-0.slice/user@0.service/app.slice/run-1.scope',
      '/user.slice/user-0.slice/user@0.service/app.slice/run-1.scope',
    ],
    ['/vms/web', '/vms/web'],
    [
      '/kubepods.slice/pod1.slice/cri-containerd-1.scope',
      '/kubepods.slice/pod1.slice/cri-containerd-1.scope',
    ],
  ] as const) {
    const found = search(t, leaf, (tree) => tree.memory(wanted));
    t.equal(found.cgroup?.path, wanted, found.reason ?? leaf);
  }
  const above = search(t, '/vms/web/no-memory-here', (tree) => tree.memory('/vms/web'));
  t.equal(above.cgroup?.path, '/vms/web');
  t.end();
});

void t.test('children of the VMM are the VM, and helpers in the scope of a machine', (t) => {
  const child = search(t, '/vms/web', (tree) => {
    tree.memory('/vms/web');
    tree.process(8, '/vms/web', { parent: VMM });
    tree.process(9, '/vms/web/below', { parent: 8 });
  });
  t.equal(child.cgroup?.path, '/vms/web');
  const helper = search(t, '/machine.slice/machine-a.scope/libvirt/emulator', (tree) => {
    tree.memory('/machine.slice/machine-a.scope');
    tree.process(8, '/machine.slice/machine-a.scope/libvirt/emulator');
  });
  t.equal(helper.cgroup?.path, '/machine.slice/machine-a.scope');
  t.end();
});

void t.test('a cgroup with others in it, only when the operator says so', (t) => {
  const others = (tree: HostTree): void => {
    tree.memory('/system.slice/all.service');
    tree.process(8, '/system.slice/all.service/other');
  };
  t.match(
    search(t, '/system.slice/all.service', others).reason,
    /holds process 8 as well.*shared-cgroup = true/,
  );
  t.equal(search(t, '/system.slice/all.service', others, true).cgroup?.path, '/system.slice/all.service');
  const hidden = search(t, '/vms/web', (tree) => {
    tree.memory('/vms/web');
    tree.write('cgroup/vms/web/cgroup.procs', '7\n0\n');
  });
  t.match(hidden.reason, /another PID namespace/);
  t.end();
});

void t.test('never the root, nor one that the daemon is in', (t) => {
  t.match(search(t, '/', undefined, true).reason, /root cgroup/);
  const daemons = search(
    t,
    '/system.slice/balloond.service/vm',
    (tree) => tree.memory('/system.slice/balloond.service'),
    true,
  );
  t.match(daemons.reason, /the daemon itself is in \/system.slice\/balloond.service/);
  t.end();
});

void t.test('hosts without what it takes are told what to do', (t) => {
  const v1 = search(t, '/', (tree) => tree.process(VMM, '/', { v1: '4:cpu,memory:/vm\n' }));
  t.match(v1.reason, /systemd.unified_cgroup_hierarchy=1/);
  t.match(search(t, '/vms/web').reason, /\/vms has no memory controller: write \+memory/);
  t.match(search(t, '/../vms/web').reason, /cgroup namespace/);
  const tree = new HostTree(t);
  t.match(findVmCgroup(VMM, { paths: tree.paths }).reason, /process 7 cannot be read \(ENOENT\)/);
  tree.process(VMM, '/vms/web');
  t.match(
    findVmCgroup(VMM, { paths: { ...tree.paths, cgroup: '/nowhere' } }).reason,
    /no cgroup v2 is mounted/,
  );
  tree.write('proc/7/cgroup', '1:name=systemd:/\n');
  t.match(findVmCgroup(VMM, { paths: tree.paths }).reason, /kernel has no cgroup v2/);
  t.end();
});
