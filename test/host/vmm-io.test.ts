import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { VmmReads } from '../../src/host/vmm-io.js';
import { eventually } from '../support/deadline.js';
import { HostTree } from '../support/host-tree.js';

void t.test('the count that rose by more is what a VMM read', (t) => {
  const tree = new HostTree(t);
  const reads = new VmmReads(7, tree.paths.proc);
  const counted = (rchar: number, disk: number): number => {
    tree.write(
      'proc/7/io',
      `rchar: ${rchar}\nwchar: 9999\nsyscr: 5\nread_bytes: ${disk}\nwrite_bytes: 99999\n`,
    );
    return reads.bytes;
  };
  t.equal(counted(1_000_000, 4096), 1_000_000);
  t.equal(
    counted(1_000_100, 8192),
    1_004_096,
    'a VMM that read much in one way once, and reads in the other now',
  );
  t.equal(counted(1_010_100, 12_288), 1_014_096);
  t.equal(counted(500, 0), 1_014_096, 'the count of another process took nothing back');
  t.equal(counted(600, 0), 1_014_196);
  t.end();
});

void t.test('a VMM that is gone, or may not be looked at, tells nothing', (t) => {
  const tree = new HostTree(t);
  const reads = new VmmReads(8, tree.paths.proc);
  t.ok(Number.isNaN(reads.bytes));
  tree.write('proc/8/io', '');
  t.ok(Number.isNaN(reads.bytes));
  t.end();
});

void t.test('what a process read is counted while it lives', async (t) => {
  const child = spawn('sh', ['-c', 'read line; cat /proc/self/status >/dev/null; read line'], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const reads = new VmmReads(child.pid ?? NaN, '/proc');
  const before = reads.bytes;
  t.ok(before > 0, 'the loader read its libraries');
  child.stdin.write('on\n');
  await eventually(
    () => reads.bytes > before,
    () => `${reads.bytes} after ${before}`,
  );
  child.stdin.end();
  await once(child, 'exit');
  t.ok(Number.isNaN(reads.bytes), 'its count went with it');
});
