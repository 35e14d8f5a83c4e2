import fc from 'fast-check';
import t from 'tap';
import { assignedMemory } from '../../src/host/assigned-memory.js';

const MIB = 2 ** 20;

void t.test('the memory that the command line of QEMU gives a guest', (t) => {
  const mib = (...words: string[]): number | null => {
    const bytes = assignedMemory(['qemu-system-x86_64', ...words].join('\0'));
    return bytes === null ? null : bytes / MIB;
  };
  t.equal(mib('-m', '512'), 512);
  t.equal(mib('-m', '1.5G'), 1536);
  t.equal(mib('-m', 'size=1048576k,slots=4,maxmem=8388608k'), 1024);
  t.equal(mib('-m', '512M,slots=2,maxmem=4G'), 512);
  t.equal(mib('--m', '2g'), 2048);
  t.equal(mib('-m', '256', '-m', '512'), 512, 'the last one holds');
  const dimm = ['-object', 'memory-backend-memfd,id=d1,size=256M', '-device', 'pc-dimm,id=x,memdev=d1'];
  t.equal(mib('-m', '512', ...dimm), 768);
  const json = [
    ...['-object', '{"qom-type":"memory-backend-memfd","id":"d1","size":268435456}'],
    ...['-device', '{"driver":"pc-dimm","id":"x","memdev":"d1"}'],
  ];
  t.equal(mib('-m', '512', ...json), 768);
  const others = ['-object', 'memory-backend-memfd,id=v,size=2G', '-device', 'virtio-mem-pci,memdev=v'];
  t.equal(mib('-m', '512', ...others), 512, 'no other device is memory that the guest has');
  t.equal(mib('-m', '512', '-device', 'pc-dimm,memdev=none', '-device', '{nonsense'), 512);
  for (const none of [[], ['-m'], ['-m', 'x'], ['-m', '0'], ['-m', 'slots=2'], ['-m', '9'.repeat(40)]]) {
    t.equal(mib(...none), null, none.join(' '));
  }
  t.equal(assignedMemory(null), null);
  t.end();
});

void t.test('any words are survived', (t) => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom(
      '-m',
      '-object',
      '-device',
      'pc-dimm,memdev=a',
      'memory-backend-ram,id=a,size=1M',
      '{}',
      '{"size":1}',
    ),
  );
  fc.assert(
    fc.property(fc.array(word), (words) => {
      const bytes = assignedMemory(words.join('\0'));
      return bytes === null || (Number.isSafeInteger(bytes) && bytes > 0);
    }),
  );
  t.end();
});
