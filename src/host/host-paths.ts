import { POOLS } from '../os/huge-pages.js';

/** Where the kernel's files are; tests have a folder of their own. */
export interface HostPaths {
  readonly proc: string;
  readonly cgroup: string;
  /** The folder of the pools of huge pages. */
  readonly hugePages: string;
  /** The socket of the helper that opens the limits of a cgroup to the daemon (balloond-limits.socket). */
  readonly limitsHelper: string;
  /** Where libvirt notes the processes of its domains. */
  readonly libvirt: string;
}

export const HOST_PATHS: HostPaths = {
  proc: '/proc',
  cgroup: '/sys/fs/cgroup',
  hugePages: POOLS,
  limitsHelper: '/run/balloond-limits.sock',
  libvirt: '/run/libvirt/qemu',
};

/** The errno name of what node:fs throws. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
