import t from 'tap';
import { vmmReadBytes } from '../../src/host/vmm-io.js';
import { HostTree } from '../support/host-tree.js';

void t.test('what a VMM read is the larger count of the kernel', (t) => {
  const tree = new HostTree(t);
  tree.write('proc/7/io', 'rchar: 1234\nwchar: 9999\nsyscr: 5\nread_bytes: 4096\nwrite_bytes: 99999\n');
  t.equal(vmmReadBytes(7, tree.paths.proc), 4096);
  tree.write('proc/7/io', 'rchar: 8192\nwchar: 0\nread_bytes: 4096\n');
  t.equal(vmmReadBytes(7, tree.paths.proc), 8192);
  t.end();
});

void t.test('a VMM that is gone, or may not be looked at, tells nothing', (t) => {
  const tree = new HostTree(t);
  t.ok(Number.isNaN(vmmReadBytes(8, tree.paths.proc)));
  tree.write('proc/8/io', '');
  t.ok(Number.isNaN(vmmReadBytes(8, tree.paths.proc)));
  t.end();
});
