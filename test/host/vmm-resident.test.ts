import t from 'tap';
import { ResidentMemory } from '../../src/host/vmm-resident.js';
import { HostTree } from '../support/host-tree.js';

const PID = 4711;
const STATUS = `Name:\tqemu-system-x86\nVmRSS:\t  900000 kB\nRssAnon:\t  700000 kB\nRssFile:\t  150000 kB
RssShmem:\t   50000 kB\nVmSwap:\t     123 kB\nHugetlbPages:\t       0 kB\n`;
const KIB = 1024;

void t.test('the memory of a process, without its program and files', (t) => {
  const tree = new HostTree(t);
  tree.write(`proc/${PID}/status`, STATUS);
  t.equal(new ResidentMemory(PID, tree.paths.proc).bytes, 750_123 * KIB);
  t.equal(new ResidentMemory(PID + 1, tree.paths.proc).bytes, 0, 'of a process that is gone');
  t.ok(new ResidentMemory(process.pid).bytes > 2 ** 20, 'of this process');
  const kept = new ResidentMemory(PID, tree.paths.proc, 60_000);
  t.equal(kept.bytes, 750_123 * KIB);
  tree.write(`proc/${PID}/status`, '');
  t.equal(kept.bytes, 750_123 * KIB, 'a reading is good for a while');
  t.end();
});

void t.test('most of the memory of a guest in a pool', (t) => {
  const tree = new HostTree(t);
  const { proc } = tree.paths;
  tree.write('proc/meminfo', 'MemTotal: 4194304 kB\nHugepagesize:       2048 kB\n');
  const pool = (kib: number): number | null => {
    tree.write(`proc/${PID}/status`, STATUS.replace(/HugetlbPages:.*/, `HugetlbPages:\t  ${kib} kB`));
    return new ResidentMemory(PID, proc).poolPageBytes(1_000_000 * KIB);
  };
  t.equal(pool(0), null);
  t.equal(pool(500_000), null, 'half of it');
  t.equal(pool(500_001), 2048 * KIB);
  t.equal(new ResidentMemory(PID, proc).bytes, 1_250_124 * KIB);
  tree.write('proc/meminfo', 'MemTotal: 4194304 kB\n');
  t.equal(new ResidentMemory(PID, proc).poolPageBytes(1_000_000 * KIB), null, 'a kernel without huge pages');
  t.end();
});
