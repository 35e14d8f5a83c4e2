import t from 'tap';
import { openOutput } from '../../../src/control/cli/output.js';
import { renderVm, statsLines } from '../../../src/control/cli/vm-report.js';
import { renderList } from '../../../src/control/cli/vm-table.js';
import { GIB, vmView } from '../../support/fleet.js';

const MIB = 1024 ** 2;
const plain = openOutput({ write: () => true }, {}, false);
const terminal = openOutput({ write: () => true, isTTY: true, columns: 80 }, { NO_COLOR: '1' }, false);

const busy = vmView('web1', {
  balloon: {
    ...vmView('web1').balloon,
    targetBytes: 1.5 * GIB,
    actualBytes: GIB,
    pendingBytes: 2 * MIB,
    inflatedBytesTotal: 3 * GIB,
  },
  verdict:
    'the VMM device has too few virtqueues: set num_vqs=5 on it and restart the VM, then look again here',
  inhibited: 'backup\x1b[2J',
});

t.test('a VM at work', (t) => {
  const text = renderVm(busy, plain);
  const lines = text.split('\n');
  t.match(lines[0], /^web1 {2}pid 4242 {2}running: /);
  t.match(lines[1], /^Verdict +the VMM device has too few/, 'the verdict comes first');
  t.match(text, /^Not discarding +backup\?\[2J$/m);
  t.match(text, /^Memory +4 GiB RAM, the guest has 3 GiB$/m);
  t.match(text, /^Balloon +1 GiB of target 1\.5 GiB: 512 MiB still to come from the guest$/m);
  t.match(text, /^ +2 MiB given up but not yet discarded$/m);
  t.match(text, /^Features +VIRTIO_BALLOON_F_MUST_TELL_HOST$/m);
  t.match(text, /^Statistics +3 s old$/m);
  t.match(text, /^ +VIRTIO_BALLOON_S_MEMFREE +2\.5 GiB$/m);
  t.match(text, /^ +VIRTIO_BALLOON_S_MAJFLT +17$/m, 'a count is no size');
  t.match(text, /^ +tag-16 +5$/m);
  t.notMatch(text, /Cgroup|Policy|Page cache/, 'what there is not is not mentioned');
  t.ok(lines.every((line) => line.length <= 80));
  t.end();
});

t.test('a VM with nothing to say', (t) => {
  const text = renderVm(vmView('web1', { state: 'connected', stats: null, features: [] }), plain);
  t.match(text, /connected: the guest driver has not started yet/);
  t.match(text, /^Verdict +nothing to fix$/m);
  t.match(text, /^Balloon +0 B of target 0 B: reached$/m);
  t.match(text, /^Features +none acknowledged$/m);
  t.match(text, /^Statistics +none received$/m);
  t.end();
});

t.test('a VM with everything', (t) => {
  const text = renderVm(
    {
      ...busy,
      balloon: { ...busy.balloon, targetBytes: 0 },
      cache: { ...busy.balloon, targetBytes: 2 * GIB, actualBytes: 2 * GIB },
      cgroup: { path: '/machine.slice/web1', currentBytes: GIB, highBytes: 2 * GIB, maxBytes: null },
      policy: { band: 2, minBytes: GIB, maxBytes: 4 * GIB, mode: 'auto' },
    },
    plain,
  );
  t.match(text, /^Balloon +1 GiB of target 0 B: 1 GiB still to go back to the guest$/m);
  t.match(text, /^Page cache +2 GiB of target 2 GiB: reached$/m);
  t.match(text, /^Cgroup +\/machine\.slice\/web1\n +1 GiB now, high 2 GiB, max max$/m);
  t.match(text, /^Policy +band 2, 1 GiB to 4 GiB, auto$/m);
  t.end();
});

t.test('ages', (t) => {
  for (const [ageSeconds, text] of [
    [0, '0 s old'],
    [99.4, '99 s old'],
    [100, '2 min old'],
    [7200, '2 h old'],
  ] as const) {
    t.equal(statsLines({ ageSeconds })[0], text);
  }
  t.end();
});

t.test('the list fits 80 columns of a terminal, and loses no name in a pipe', (t) => {
  const name = 'a-very-long-name-of-a-machine.example';
  const widest = vmView(name, {
    state: 'connected',
    ramBytes: 1023 * MIB,
    balloon: { ...busy.balloon, actualBytes: 1023, targetBytes: 1023 * MIB },
    stats: { ageSeconds: 1, VIRTIO_BALLOON_S_AVAIL: 1023 * MIB },
  });
  const lines = renderList([widest, vmView('b', { stats: null })], terminal).split('\n');
  t.ok(
    lines.every((line) => line.length <= 80),
    lines.join('\n'),
  );
  t.match(lines[1], /^a-very-long-n.*… +connected /);
  t.match(lines[2], /^b +running +4 GiB +4 GiB +0 B +0 B +-$/);
  t.ok(renderList([widest], plain).includes(name));
  t.end();
});

t.test('the list ends with what needs attention', (t) => {
  const lines = renderList([vmView('calm'), busy], plain).split('\n');
  t.equal(lines.length, 5);
  t.match(lines[3], /^web1: the VMM device has too few/);
  t.match(lines[4], /^web1: not discarding: backup\?/);
  t.match(renderList([], plain), /qemu-args/);
  t.end();
});

t.test('the state is painted, not a VM that is called like it', (t) => {
  const colour = openOutput({ write: () => true, isTTY: true, columns: 80 }, {}, false);
  const line = renderList([vmView('running')], colour).split('\n')[1] ?? '';
  t.match(line, /^running {2}\x1b\[32mrunning\x1b\[39m /);
  t.end();
});
