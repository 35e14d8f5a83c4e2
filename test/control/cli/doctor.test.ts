import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { RETURNS_STEP } from '../../../protocol/control/events.js';
import type { DaemonEvent } from '../../../protocol/control/schema.js';
import { examineAdopted } from '../../../src/control/cli/examine-adopted.js';
import { examineFiles, examineHost, examineReturns, examineVm } from '../../../src/control/cli/doctor.js';
import { bad, note, type Finding } from '../../../src/control/cli/finding.js';
import {
  findQemu,
  hostFacts,
  openFilesMax,
  vmmFacts,
  type HostFacts,
} from '../../../src/control/cli/host-facts.js';
import type { DiagnosisCode } from '../../../protocol/control/diagnosis.js';
import type { WallMs } from '../../../src/os/clock.js';
import { verdict, vmView } from '../../support/fleet.js';

const HEALTHY: HostFacts = {
  discardMethod: 'process_madvise',
  cgroupV2: true,
  pressure: true,
  shmemHugePages: 'advise',
  hugePages: 0,
  qemu: { path: '/usr/bin/qemu-system-x86_64', version: '11.1.3', vhostUserDevice: true },
  discovery: true,
};
const QEMU = { kind: 'qemu-system-x86_64', version: '11.1.3', obstacle: null };

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
    ...{
      seq: 1,
      epoch: '00000000',
      id: '00000000-1',
      time: '',
      level: 'error',
      vm: 'web1',
      message: 'it is so',
    },
    ...{ event: name, fields },
  });
  t.same(wrong(examineVm(vmView('web1'), QEMU, [])), []);
  const memory = examineVm(vmView('web1'), QEMU, [event('memory-mapped', { backingPageBytes: 2 ** 21 })]);
  t.match(memory.find(({ check }) => check === 'memory')?.found, '4 GiB shared, pages of 2 MiB');
  t.same(wrong(examineVm(vmView('web1', verdict('private-memory', 'it is private', 'share it')), QEMU, [])), [
    'memory mend',
  ]);
  t.same(wrong(examineVm(vmView('web1', verdict('out-of-puff', 'out of puff', 'share=on')), QEMU, [])), [
    'verdict mend',
  ]);
  const limited = (code: DiagnosisCode): Finding[] => {
    const { verdict: problem, diagnosis } = verdict(code, 'no limits', 'mend it');
    return examineVm(vmView('web1', { limits: { ...vmView('web1').limits, problem, diagnosis } }), QEMU, []);
  };
  t.same(wrong(limited('no-cgroup')), ['limits note']);
  const mendOf = (findings: readonly Finding[], which: string): unknown =>
    findings.find(({ check }) => check === which)?.mend;
  t.match(mendOf(limited('no-cgroup'), 'limits'), /^mend it$/);
  t.match(mendOf(limited('limits-denied'), 'limits'), /^systemctl start/);
  t.same(wrong(examineVm(vmView('web1', { inhibited: '/dev/vfio/1' }), QEMU, [])), ['pinned mend']);
  const inhibit = { order: 'inhibit', by: 'operator', since: null, undo: 'balloonctl allow web1' };
  const ordered = examineVm(
    vmView('web1', {
      inhibited: 'backup',
      orders: [{ ...inhibit, says: 'discard nothing ("backup")' }] as never,
    }),
    QEMU,
    [],
  );
  t.same(wrong(ordered), ['inhibited note'], 'an order is no fault');
  t.equal(mendOf(ordered, 'inhibited'), 'balloonctl allow web1');
  const queues = examineVm(
    vmView('web1', verdict('too-few-queues', 'there are 3', 'set num_vqs=5 on the device')),
    QEMU,
    [],
  );
  t.same(wrong(queues), ['queues mend']);
  t.match(queues.find(({ check }) => check === 'queues')?.mend, 'set num_vqs=5 on the device');
  const away = examineVm(vmView('web1', { state: 'connected' }), QEMU, []);
  t.same(wrong(away), ['driver note']);
  t.match(mendOf(away, 'driver'), /^modprobe virtio_balloon \(in the guest\), or see dmesg there/);
  const both = { ...QEMU, obstacle: 'own-balloon' as const };
  const refused = examineVm(
    vmView('web1', { state: 'connected', ...verdict('no-driver', 'none has started', 'look') }),
    both,
    [],
  );
  t.same(wrong(refused), ['driver mend'], 'and not the verdict, whose step does not help');
  t.match(mendOf(refused, 'driver'), /^start QEMU without its own virtio-balloon/);
  t.same(wrong(examineVm(vmView('web1'), both, [])), [], 'ours came first in the guest');
  t.same(wrong(examineVm(vmView('web1', { stats: { ageSeconds: 900 } }), QEMU, [])), ['driver note']);
  t.end();
});

void t.test('a page cache balloon is looked at where there is one', (t) => {
  const look = (
    targetBytes: number,
    feature = 'VIRTIO_CACHE_BALLOON_F_RANGES',
    inflatedBytesTotal = 0,
  ): Finding[] => {
    const { balloon, features } = vmView('web1');
    const cache = { ...balloon, targetBytes, actualBytes: targetBytes / 2, inflatedBytesTotal };
    const findings = examineVm(vmView('web1', { cache, features: [...features, feature] }), QEMU, []);
    return findings.filter(({ check }) => check === 'page cache balloon');
  };
  t.same(wrong(look(2 ** 30)), []);
  t.match(look(2 ** 30), [{ found: 'holds 512 MiB of at most 1 GiB' }]);
  t.same(wrong(look(2 ** 30, 'none', 4096)), [], 'a driver as old as the proposal acks nothing');
  t.match(look(0), [{ level: 'note', mend: 'balloonctl set web1 --cache-limit SIZE' }]);
  t.match(look(2 ** 30, 'none'), [{ level: 'note', mend: /^load the virtio_balloon of / }]);
  const neither = vmView('web1', { state: 'connected', features: [], cache: vmView('web1').balloon });
  t.match(
    examineVm(neither, QEMU, []).find(({ check }) => check === 'driver')?.mend,
    'modprobe virtio_balloon',
  );
  t.end();
});

void t.test('the daemon may have as many files open as its VMs need', (t) => {
  t.same(wrong([examineFiles(1024, 28)]), []);
  t.same(wrong([examineFiles(1024, 29)]), ['open files mend']);
  t.match(examineFiles(1024, 29).mend, 'LimitNOFILE=4096');
  t.same(wrong([examineFiles(null, 29)]), []);
  t.end();
});

void t.test('this host is looked at', async (t) => {
  const facts = await hostFacts();
  t.match(facts.discardMethod, /^(process_madvise|madvise|fallocate)$/);
  t.ok(Number(openFilesMax(process.pid)) > 0);
  t.equal(openFilesMax(2 ** 30), null);
  t.match(vmmFacts(process.pid, facts.qemu), { kind: /node/, version: null });
  t.same(vmmFacts(2 ** 30, null), { kind: 'unknown', version: null, obstacle: null });
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

void t.test('a VM that connects again and again has a line, until it rests', (t) => {
  const event = (vm: string, time: string): DaemonEvent => ({
    ...{ seq: 1, epoch: '00000000', id: '00000000-1', level: 'warn', message: 'it came' },
    ...{ event: 'vm-returns', vm, time, fields: { times: 10, seconds: 3 } },
  });
  const at = '2026-11-29T09:00:00.000Z';
  const soon = Date.parse(at) + 60_000;
  t.same(examineReturns([event('web1', at), event('web1', at), event('web2', at)], soon as WallMs), [
    bad('web1', 'connections', '10 within 3 s', RETURNS_STEP),
    bad('web2', 'connections', '10 within 3 s', RETURNS_STEP),
  ]);
  t.same(examineReturns([event('web1', at)], (soon + 600_000) as WallMs), []);
  t.end();
});

void t.test('each socket and domain that cannot be adopted has a line, with its step', (t) => {
  const problem =
    'the domain db cannot be adopted, since it said: no: use a QMP socket of the VM instead, since QEMU tells the two sizes apart';
  const by = 'configuration';
  t.same(
    examineAdopted([
      { path: 'libvirt:web', by, vm: 'web', problem: null },
      { path: 'libvirt:db', by, vm: null, problem },
      { path: '/run/a.qmp', by, vm: null, problem: 'it is odd' },
      { path: '/run/b.qmp', by, vm: null, problem: null },
    ]),
    [
      note(
        'libvirt:db',
        'adopted',
        'the domain db cannot be adopted, since it said: no',
        'use a QMP socket of the VM instead, since QEMU tells the two sizes apart',
      ),
      note('/run/a.qmp', 'adopted', 'it is odd', 'run balloonctl adopt --release for it'),
    ],
  );
  t.end();
});
