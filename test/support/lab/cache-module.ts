/** The guest's driver with both limits, in the place of the kernel's: built for the lab's kernel, loaded into a guest. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { DeviceOptions, Guest } from './guest.js';
import { ensureLab } from './lab.js';

const SCRIPT = join(import.meta.dirname, '../../../../scripts/guest-module');

/** QEMU's side of a page cache balloon that is served at `path`. */
export function cacheDevice(path: string): DeviceOptions {
  return { path, virtioId: 13, numVqs: 2, vqSize: 64, configSize: 28 };
}

/** QEMU's side of both limits, where the daemon of `CACHE_SOCKETS` has this folder: on one device, or on two, as VMs had before. */
export function bothLimits(folder: string, devices: 1 | 2): DeviceOptions[] {
  const path = join(folder, 'vhost.sock');
  if (devices === 1) return [{ path }];
  return [{ path, numVqs: 5, configSize: 16 }, cacheDevice(join(folder, 'cache.sock'))];
}

/** Lines of a configuration: a socket for the balloon, and one for that of the page cache alone. */
export const CACHE_SOCKETS = `[[socket]]
path = "{folder}/vhost.sock"

[[socket]]
path = "{folder}/cache.sock"
device = "cache-balloon"
`;

/**
 * Path of the module: that of GUEST_KERNEL_MODULE, or one that is built and kept. Null where Debian has no headers of the
 * lab's kernel any more.
 */
export async function buildCacheModule(): Promise<string | null> {
  const given = process.env['GUEST_KERNEL_MODULE'];
  if (given !== undefined) return given;
  const { cacheModule } = await ensureLab();
  if (cacheModule !== null) return cacheModule;
  const { status, stdout, stderr } = spawnSync('sh', [SCRIPT], { encoding: 'utf8' });
  if (status === 0) return stdout.trim();
  if (status === 3) return null;
  throw new Error(`scripts/guest-module: ${stderr}`);
}

export async function loadCacheModule(guest: Guest, path: string): Promise<void> {
  // A command of a shell has at most 128 KiB (MAX_ARG_STRLEN).
  const text = gzipSync(readFileSync(path)).toString('base64');
  const { code, output } = await guest.sh(
    `base64 -d <<'END' | gunzip > /ours.ko\n${text}\nEND\n(lsmod | grep -q ^virtio_balloon && rmmod virtio_balloon); insmod /ours.ko`,
  );
  if (code !== 0) throw new Error(`insmod: ${output}\n${guest.consoleLog}`);
}
