import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { DaemonEvent } from '../../../protocol/control/events.js';
import { examineFiles, examineHost, examineVm, type Finding } from '../../../src/control/cli/doctor.js';
import {
  findQemu,
  hostFacts,
  openFilesMax,
  vmmFacts,
  type HostFacts,
} from '../../../src/control/cli/host-facts.js';
import { vmView } from '../../support/fleet.js';

const HEALTHY: HostFacts = {
  discardMethod: 'process_madvise',
  cgroupV2: true,
  pressure: true,
  shmemHugePages: 'advise',
  hugePages: 0,
  qemu: { path: '/usr/bin/qemu-system-x86_64', version: '11.1.3', vhostUserDevice: true },
  discovery: true,
};
const QEMU = { kind: 'qemu-system-x86_64', version: '11.1.3' };

function wrong(findings: readonly Finding[]): string[] {
  for (const { level, mend, check } of findings) t.equal(mend === null, level === 'ok', check);
  return findings.filter(({ level }) => level !== 'ok').map(({ check, level }) => `${check} ${level}`);
}

void t.test('each thing that is wrong with a host is named with what mends it', (t) => {
  t.same(wrong(examineHost(HEALTHY)), []);
  const cases: [Partial<HostFacts>, string][] = [
    [{ discardMethod: 'madvise' }, 'discard note'],
    [{ discardMethod: null }, 'discard mend'],
    [{ cgroupV2: false }, 'cgroup note'],
    [{ pressure: false }, 'pressure note'],
    [{ shmemHugePages: 'never' }, 'huge pages note'],
    [{ shmemHugePages: null }, 'huge pages note'],
    [{ qemu: null }, 'QEMU note'],
    [{ qemu: { path: '/q', version: '10.0', vhostUserDevice: false } }, 'QEMU mend'],
    [{ discovery: false }, 'discovery note'],
  ];
  for (const [change, expected] of cases) t.same(wrong(examineHost({ ...HEALTHY, ...change })), [expected]);
  t.end();
});

void t.test('each thing that is wrong with a VM is named with what mends it', (t) => {
  const event = (name: DaemonEvent['event'], fields: Record<string, unknown>): DaemonEvent => ({
    ...{ seq: 1, time: '', level: 'error', vm: 'web1', message: 'it is so' },
    ...{ event: name, fields },
  });
  t.same(wrong(examineVm(vmView('web1'), QEMU, [])), []);
  const memory = examineVm(vmView('web1'), QEMU, [event('memory-mapped', { backingPageBytes: 2 ** 21 })]);
  t.match(memory.find(({ check }) => check === 'memory')?.found, '4 GiB shared, pages of 2 MiB');
  t.same(wrong(examineVm(vmView('web1', { verdict: 'add share=on' }), QEMU, [])), ['memory mend']);
  t.same(wrong(examineVm(vmView('web1', { verdict: 'out of puff' }), QEMU, [])), ['verdict mend']);
  const limits = { ...vmView('web1').limits, problem: 'its cgroup holds others' };
  t.same(wrong(examineVm(vmView('web1', { limits }), QEMU, [])), ['limits note']);
  t.same(wrong(examineVm(vmView('web1', { inhibited: '/dev/vfio/1' }), QEMU, [])), ['pinned mend']);
  const queues = examineVm(vmView('web1', { verdict: 'set num_vqs=5 on it' }), QEMU, []);
  t.same(wrong(queues), ['queues mend']);
  t.match(queues.find(({ check }) => check === 'queues')?.mend, 'set num_vqs=5 on the device');
  t.same(wrong(examineVm(vmView('web1', { state: 'connected' }), QEMU, [])), ['driver note']);
  t.same(wrong(examineVm(vmView('web1', { stats: { ageSeconds: 900 } }), QEMU, [])), ['driver note']);
  t.end();
});

void t.test('the daemon may have as many files open as its VMs need', (t) => {
  t.same(wrong([examineFiles(1024, 28)]), []);
  t.same(wrong([examineFiles(1024, 29)]), ['open files mend']);
  t.match(examineFiles(1024, 29).mend, 'LimitNOFILE=4096');
  t.same(wrong([examineFiles(null, 29)]), []);
  t.end();
});

void t.test('this host is looked at', (t) => {
  const facts = hostFacts();
  t.match(facts.discardMethod, /^(process_madvise|madvise|fallocate)$/);
  t.ok(Number(openFilesMax(process.pid)) > 0);
  t.equal(openFilesMax(2 ** 30), null);
  t.match(vmmFacts(process.pid, facts.qemu), { kind: /node/, version: null });
  t.same(vmmFacts(2 ** 30, null), { kind: 'unknown', version: null });
  t.end();
});

void t.test('QEMU is asked for its version and the device', (t) => {
  const folder = t.testdir();
  const program = join(folder, 'qemu-system-x86_64');
  const says = (device: string): void => {
    const script = `[ "$1" = --version ] && echo "QEMU emulator version 11.1.3 (Debian)" || echo '${device}'`;
    writeFileSync(program, `#!/bin/sh\n${script}\n`);
    chmodSync(program, 0o755);
  };
  says('name "vhost-user-test-device-pci", bus PCI');
  t.same(findQemu(`/nowhere:${folder}`), { path: program, version: '11.1.3', vhostUserDevice: true });
  says('name "vhost-user-fs-pci", bus PCI');
  t.match(findQemu(folder), { vhostUserDevice: false });
  t.equal(findQemu('/nowhere'), null);
  t.end();
});
