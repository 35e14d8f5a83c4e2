import { execFileSync } from 'node:child_process';
import { fstatSync, openSync } from 'node:fs';
import t from 'tap';
import { createEventFd } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { allocatedBytes, describeFile, SYSTEM_PAGE_BYTES } from '../../src/os/file.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { HUGE_PAGE_BYTES, reserveHugePages } from '../support/huge-pages.js';
import { runNode, script } from './inspect.js';

void t.test('a memfd', (t) => {
  const fd = createMemfd('shmem', 3 * SYSTEM_PAGE_BYTES + 1);
  const { dev, ino } = fstatSync(fd, { bigint: true });
  t.match(describeFile(fd), {
    dev,
    ino,
    sizeBytes: 3 * SYSTEM_PAGE_BYTES + 1,
    kind: 'shmem',
    pageBytes: SYSTEM_PAGE_BYTES,
  });
  const other = createMemfd('shmem', 4096);
  t.not(describeFile(other).ino, ino, 'two files are told apart');
  closeFd(fd);
  closeFd(other);
  t.end();
});

void t.test('a file that is not in memory: on disk it has a size, elsewhere it is asked nothing', (t) => {
  const event = createEventFd();
  t.match(describeFile(event), { kind: 'other', sizeBytes: 0, shmemHugePages: false });
  closeFd(event);
  for (const path of [process.execPath, '/sys/kernel/mm/transparent_hugepage/enabled', '/dev/null']) {
    const type = execFileSync('stat', ['--file-system', '--format=%T', path], { encoding: 'utf8' }).trim();
    const fd = openSync(path, 'r');
    const kind = /^(ext2\/ext3|xfs|btrfs|f2fs|zfs|bcachefs)$/.test(type) ? 'disk' : 'other';
    // Devices are on devtmpfs, which is as good as tmpfs to stat, and no memory.
    t.match(
      describeFile(fd),
      { kind, sizeBytes: kind === 'disk' ? fstatSync(fd).size : 0 },
      `${path}: ${type}`,
    );
    t.match(describeFile(fd, process.ppid), { kind }, 'by the mounts of another process');
    closeFd(fd);
  }
  t.throws(() => describeFile(event), { code: 'EBADF' });
  t.end();
});

void t.test('huge pages of hugetlbfs', (t) => {
  if (!reserveHugePages(t, 2)) {
    t.pass('hugetlbfs', { skip: 'no huge pages can be reserved here' });
    t.end();
    return;
  }
  const fd = createMemfd('huge', 2 * HUGE_PAGE_BYTES, { hugePageBytes: HUGE_PAGE_BYTES });
  t.match(describeFile(fd), {
    kind: 'hugetlbfs',
    pageBytes: HUGE_PAGE_BYTES,
    sizeBytes: 2 * HUGE_PAGE_BYTES,
  });
  closeFd(fd);
  t.end();
});

void t.test('tmpfs says by its mount whether it has huge pages', (t) => {
  const mounted = (options: string): string => {
    const { stdout, stderr, status } = runNode(
      script(
        { file: 'describeFile' },
        `import { openSync } from 'node:fs';
         const { kind, shmemHugePages } = describeFile(openSync('/mnt/ram', 'w+'));
         console.log(kind, shmemHugePages);`,
      ),
      [],
      ['unshare', '-m', 'sh', '-c', `mount -t tmpfs -o ${options} ram /mnt || exit 9; exec "$@"`, 'sh'],
    );
    if (status !== 0) t.comment(stderr);
    return stdout;
  };
  if (mounted('huge=never') === '') {
    t.pass('tmpfs', { skip: 'no mount namespace can be made here' });
    t.end();
    return;
  }
  t.equal(mounted('huge=never'), 'shmem false');
  t.equal(mounted('huge=always'), 'shmem true');
  t.equal(mounted('huge=advise'), 'shmem true');
  t.equal(mounted('size=1m'), 'shmem false');
  t.end();
});

void t.test('what a file takes up', (t) => {
  const page = SYSTEM_PAGE_BYTES;
  const fd = createMemfd('blocks', 8 * page);
  t.equal(allocatedBytes(fd), 0);
  const mapping = Mapping.map(fd, 0, 8 * page);
  mapping.write(3 * page, new Uint8Array(page + 1), 0, page + 1);
  t.equal(allocatedBytes(fd), 2 * page);
  mapping.close();
  closeFd(fd);
  t.end();
});
