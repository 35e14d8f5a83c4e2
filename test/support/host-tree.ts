// Folders that look like /proc and /sys/fs/cgroup, for what this machine's kernel does not have.
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';
import { LIMITS } from '../../protocol/control/limits.js';
import type { HostPaths } from '../../src/host/host-paths.js';
import { temporaryFolder } from './fleet.js';

interface PoolCounts {
  total: number;
  free: number;
  reserved?: number;
  surplus?: number;
}

export class HostTree {
  readonly paths: HostPaths;
  readonly folder: string;

  constructor(t: Test) {
    this.folder = temporaryFolder(t);
    this.paths = {
      proc: join(this.folder, 'proc'),
      cgroup: join(this.folder, 'cgroup'),
      hugePages: join(this.folder, 'hugepages'),
      limitsHelper: join(this.folder, 'limits.sock'),
      libvirt: join(this.folder, 'libvirt'),
    };
    this.write('cgroup/cgroup.controllers', 'cpu memory\n');
    this.process('self', '/system.slice/balloond.service');
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.folder, path)), { recursive: true });
    writeFileSync(join(this.folder, path), text);
  }

  link(path: string, target: string): void {
    symlinkSync(target, join(this.folder, path));
  }

  read(path: string): string {
    return readFileSync(join(this.folder, path), 'latin1').trim();
  }

  process(pid: number | 'self', cgroup: string, { parent = 1, v1 = '' } = {}): void {
    this.write(`proc/${pid}/cgroup`, `${v1}0::${cgroup}\n`);
    this.write(`proc/${pid}/stat`, `${pid} (a ) name) S ${parent} 1 1 0`);
    const procs = `cgroup${cgroup}/cgroup.procs`;
    const before = existsSync(join(this.folder, procs)) ? this.read(procs) + '\n' : '';
    this.write(procs, `${before}${pid === 'self' ? process.pid : pid}\n`);
  }

  /** The pool of huge pages of one size, by numbers of pages. */
  pool(pageBytes: number, { total, free, reserved = 0, surplus = 0 }: PoolCounts): void {
    const numbers = { nr: total, free, resv: reserved, surplus };
    for (const [name, pages] of Object.entries(numbers))
      this.write(`hugepages/hugepages-${pageBytes / 1024}kB/${name}_hugepages`, `${pages}\n`);
  }

  memory(cgroup: string, { current = 0, high = 'max', max = 'max', stat = '' } = {}): void {
    for (const { file } of Object.values(LIMITS)) this.write(`cgroup${cgroup}/${file}`, 'max\n');
    const files = { current: String(current), high, max, stat, events: 'low 0\nhigh 3\noom_kill 0\n' };
    for (const [name, text] of Object.entries(files))
      this.write(`cgroup${cgroup}/memory.${name}`, `${text}\n`);
  }
}
