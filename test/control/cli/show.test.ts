import t from 'tap';
import { byField } from '../../../protocol/control/limits.js';
import { openOutput } from '../../../src/control/cli/output.js';
import { renderVm, statsLines } from '../../../src/control/cli/show.js';
import { GIB, vmView } from '../../support/fleet.js';

const MIB = 1024 ** 2;
const plain = openOutput({ write: () => true }, {}, false);

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

void t.test('a VM at work', (t) => {
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

void t.test('a VM whose guest has yet to say what its balloon holds', (t) => {
  const balloon = { ...vmView('web1').balloon, actualUnknown: true };
  const text = renderVm(vmView('web1', { balloon }), plain);
  t.match(text, /^Memory +4 GiB RAM, the guest has an unknown part of it$/m);
  t.match(text, /^Balloon +unknown of target 0 B: the guest has yet to say what it holds$/m);
  t.end();
});

void t.test('a VM with nothing to say', (t) => {
  const text = renderVm(vmView('web1', { state: 'connected', stats: null, features: [] }), plain);
  t.match(text, /connected: the guest driver has not started yet/);
  t.match(text, /^Verdict +nothing to fix$/m);
  t.match(text, /^Balloon +0 B of target 0 B: the target waits for the guest driver$/m);
  t.match(text, /^Features +none acknowledged$/m);
  t.match(text, /^Statistics +none received$/m);
  t.end();
});

void t.test('a VM with everything', (t) => {
  const text = renderVm(
    {
      ...busy,
      balloon: { ...busy.balloon, targetBytes: 0 },
      cache: { ...busy.balloon, targetBytes: 2 * GIB, actualBytes: 2 * GIB },
      cgroup: { path: '/machine.slice/web1', currentBytes: GIB, ...byField(() => null), highBytes: 2 * GIB },
      policy: { band: 'silver', minBytes: GIB, maxBytes: 4 * GIB, mode: 'auto' },
      orders: [
        {
          order: 'target',
          says: 'the guest keeps 1 GiB',
          by: 'operator',
          since: '2025-01-01T12:00:00.123Z',
          undo: 'balloonctl policy resume web1',
        },
      ],
    },
    plain,
  );
  t.match(text, /^Balloon +1 GiB of target 0 B: 1 GiB still to go back to the guest$/m);
  t.match(text, /^Page cache +2 GiB of at most 2 GiB$/m);
  t.match(text, /^Memory +4 GiB RAM, the guest has 1 GiB$/m, 'less what either balloon holds');
  t.match(text, /^Cgroup +\/machine\.slice\/web1\n +1 GiB now, high 2 GiB, max max/m);
  t.match(text, /^Policy +band silver, 1 GiB to 4 GiB, auto$/m);
  t.match(text, /^Orders +the guest keeps 1 GiB, by the operator since 2025-01-01T12:00:00Z\n/m);
  t.match(text, /^ +to take it back: balloonctl policy resume web1$/m);
  t.end();
});

void t.test('ages', (t) => {
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
