import { existsSync } from 'node:fs';
import t from 'tap';
import { HostMemory } from '../../src/host/meminfo.js';
import { parsePressure, PressureTrigger } from '../../src/host/pressure.js';
import { HostTree } from '../support/host-tree.js';
import { openFds } from '../os/inspect.js';

const FILE = '/proc/pressure/memory';

void t.test('what the kernel writes, and what it does not', (t) => {
  const line = 'avg10=12.50 avg60=3.00 avg300=0.10 total=123456';
  const parsed = { avg10: 12.5, totalUs: 123456 };
  t.same(parsePressure(`some ${line}\nfull ${line}\n`), { some: parsed, full: parsed });
  t.same(parsePressure(`some ${line}\n`), { some: parsed, full: null });
  for (const text of ['', 'full ' + line, 'some avg10=x', '\0']) t.equal(parsePressure(text), null);
  t.end();
});

void t.test('the memory of a host', (t) => {
  const tree = new HostTree(t);
  tree.write('proc/meminfo', 'MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n');
  const memory = new HostMemory(tree.paths.proc);
  t.same(memory.read(), { totalBytes: 1_024_000, availableBytes: 409_600, pressure: null });
  tree.write('proc/meminfo', 'MemTotal:       1000 kB\n');
  t.throws(() => memory.read(), /no MemAvailable/);
  const { totalBytes, availableBytes } = new HostMemory().read();
  t.ok(availableBytes > 0 && availableBytes < totalBytes, 'of this host');
  t.end();
});

void t.test('a trigger', { skip: existsSync(FILE) ? false : 'this kernel counts no pressure' }, (t) => {
  const before = openFds();
  const trigger = new HostMemory().watchPressure(() => undefined);
  trigger.close();
  trigger.close();
  t.equal(openFds(), before, 'closed');
  const wrong = { kind: 'some', stallUs: 5_000_000, windowUs: 2_000_000 } as const;
  t.throws(() => new PressureTrigger(FILE, wrong, () => undefined), { code: 'EINVAL' });
  t.throws(() => new PressureTrigger('/nowhere', wrong, () => undefined), { code: 'ENOENT' });
  t.equal(openFds(), before, 'also when refused');
  t.end();
});
