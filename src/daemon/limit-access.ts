/**
 * Cgroups belong to root, and the daemon is not root. A helper that systemd starts (balloond-limits.socket) makes the
 * two limits and the pressure file of a cgroup writable for the daemon's group, and can do nothing else.
 */
import { accessSync, constants } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { VmCgroup } from '../host/cgroup.js';
import { HOST_PATHS, type HostPaths } from '../host/host-paths.js';

export const HELPER_SOCKET = '/run/balloond-limits.sock';
/** systemd starts a shell for it. */
const TIMEOUT_MS = 8000;

export function isWritable(cgroup: VmCgroup): boolean {
  try {
    for (const file of ['memory.high', 'memory.max']) accessSync(join(cgroup.folder, file), constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Asks the helper, if there is one. Whether it helped is found out by writing. */
export function openAccess(cgroup: VmCgroup, paths: HostPaths, socket = HELPER_SOCKET): Promise<void> {
  if (paths !== HOST_PATHS) return Promise.resolve();
  return new Promise((resolve) => {
    const helper = connect({ path: socket });
    helper.setTimeout(TIMEOUT_MS, () => helper.destroy());
    helper.on('error', () => undefined);
    helper.on('close', () => resolve());
    helper.resume();
    helper.end(`${cgroup.path}\n`);
  });
}
