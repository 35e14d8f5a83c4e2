import t from 'tap';
import { renderList } from '../../../src/control/cli/list.js';
import { openOutput } from '../../../src/control/cli/output.js';
import { vmView } from '../../support/fleet.js';

const MIB = 1024 ** 2;
const plain = openOutput({ write: () => true }, {}, false);
const terminal = openOutput({ write: () => true, isTTY: true, columns: 80 }, { NO_COLOR: '1' }, false);

void t.test('the list fits 80 columns of a terminal, and loses no name in a pipe', (t) => {
  const name = 'a-very-long-name-of-a-machine.example';
  const widest = vmView(name, {
    state: 'connected',
    ramBytes: 1023 * MIB,
    balloon: { ...vmView(name).balloon, actualBytes: 1023, targetBytes: 1023 * MIB },
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

void t.test('page cache balloons have a column where there are any', (t) => {
  const { balloon } = vmView('both');
  const both = vmView('both', {
    state: 'connected',
    ramBytes: 1023 * MIB,
    balloon: { ...balloon, actualBytes: 100 * MIB },
    cache: { ...balloon, actualBytes: 600 * MIB },
    stats: { ageSeconds: 1, VIRTIO_BALLOON_S_AVAIL: 1023 * MIB },
  });
  const lines = renderList([both, vmView('plain')], terminal).split('\n');
  t.match(lines[0], / TARGET +CACHE +AVAILABLE$/);
  t.match(
    lines[1],
    /^both +connected +1023 MiB +323 MiB +100 MiB +0 B +600 MiB +323 MiB$/,
    'no more than it has',
  );
  t.match(lines[2], /^plain .* 0 B +- +3 GiB$/);
  t.ok(lines.every((line) => line.length <= 80));
  t.notMatch(renderList([vmView('plain')], terminal), 'CACHE');
  t.end();
});

void t.test(
  'a balloon whose guest has yet to say what it holds is unknown, and no size is made of it',
  (t) => {
    const balloon = { ...vmView('web1').balloon, actualUnknown: true, targetBytes: 100 * MIB };
    const lines = renderList([vmView('web1', { balloon })], plain).split('\n');
    t.match(lines[1], /^web1 +running +4 GiB +unknown +unknown +100 MiB +3 GiB$/);
    t.end();
  },
);

void t.test('the list ends with what needs attention', (t) => {
  const busy = vmView('web1', { verdict: 'set num_vqs=5', inhibited: 'backup\x1b[2J' });
  const lines = renderList([vmView('calm'), busy], plain).split('\n');
  t.equal(lines.length, 5);
  t.match(lines[3], /^web1: set num_vqs=5$/);
  t.match(lines[4], /^web1: not discarding: backup\?/);
  t.end();
});

void t.test('the state is painted, not a VM that is called like it', (t) => {
  const colour = openOutput({ write: () => true, isTTY: true, columns: 80 }, {}, false);
  const line = renderList([vmView('running')], colour).split('\n')[1] ?? '';
  t.match(line, /^running {2}\x1b\[32mrunning\x1b\[39m /);
  t.end();
});
