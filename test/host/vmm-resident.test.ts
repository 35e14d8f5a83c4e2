import t from 'tap';
import { poolPageBytes, residentBytes } from '../../src/host/vmm-resident.js';
import { HostTree } from '../support/host-tree.js';

const PID = 4711;
const STATUS = `Name:\tqemu-system-x86\nVmRSS:\t  900000 kB\nRssAnon:\t  700000 kB\nRssFile:\t  150000 kB
RssShmem:\t   50000 kB\nVmSwap:\t       0 kB\nHugetlbPages:\t       0 kB\n`;
const KIB = 1024;

void t.test('the memory of a process, without its program and files', (t) => {
  const tree = new HostTree(t);
  tree.write(`proc/${PID}/status`, STATUS);
  t.equal(residentBytes(PID, tree.paths.proc), 750_000 * KIB);
  t.equal(residentBytes(PID + 1, tree.paths.proc), 0, 'of a process that is gone');
  t.ok(residentBytes(process.pid) > 2 ** 20, 'of this process');
  t.end();
});

void t.test('most of the memory of a guest in a pool', (t) => {
  const tree = new HostTree(t);
  const { proc } = tree.paths;
  tree.write('proc/meminfo', 'MemTotal: 4194304 kB\nHugepagesize:       2048 kB\n');
  const pool = (kib: number): number | null => {
    tree.write(`proc/${PID}/status`, STATUS.replace(/HugetlbPages:.*/, `HugetlbPages:\t  ${kib} kB`));
    return poolPageBytes(PID, 1_000_000 * KIB, proc);
  };
  t.equal(pool(0), null);
  t.equal(pool(500_000), null, 'half of it');
  t.equal(pool(500_001), 2048 * KIB);
  t.equal(residentBytes(PID, proc), 1_250_001 * KIB);
  tree.write('proc/meminfo', 'MemTotal: 4194304 kB\n');
  t.equal(poolPageBytes(PID, 1_000_000 * KIB, proc), null, 'a kernel without huge pages');
  t.end();
});
