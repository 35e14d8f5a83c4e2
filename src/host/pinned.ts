import { opendirSync, readlinkSync, statSync } from 'node:fs';
import { readKernelFile } from '../os/kernel-file.js';
import { codeOf } from './host-paths.js';

/** A process may have as many files open as it likes; no more are looked at. */
const MAX_FDS = 4096;

/**
 * Files that let a device reach guest memory by itself (VFIO, iommufd, vhost-vdpa). Its pages are pinned: one that is
 * removed from the file stays where it is for the device, and the guest gets another.
 */
const PINNING = [
  /^\/dev\/vfio\//,
  /^\/dev\/vhost-vdpa/,
  /^\/dev\/iommu$/,
  // fs/anon_inodes.c names devices and groups of VFIO like this; older kernels without the brackets.
  /^anon_inode:\[?(kvm-)?vfio/,
];

/** Their names in /proc/misc and /proc/devices, where the kernel lists what a driver was loaded for. */
const PINNING_DRIVER = /^ *\d+ (vfio|iommu|vhost-vdpa)/m;

export interface PinSearch {
  /** What the process has open of that kind, as /proc names it; null: nothing. */
  file: string | null;
  /** Why it could not be told, as an errno name; null: it could. */
  unknown: string | null;
}

export const NOT_PINNED: PinSearch = { file: null, unknown: null };

/**
 * Looks at the open files of a process, one after the other, as far as it is asked to. Threads with a file table of
 * their own are not looked at.
 */
export function* searchPinning(pid: number, proc = '/proc'): Generator<undefined, PinSearch, undefined> {
  if (!mayPin(proc)) return NOT_PINNED;
  const folder = `${proc}/${pid}/fd`;
  try {
    const files = opendirSync(folder, { bufferSize: 256 });
    try {
      for (let seen = 0; seen < MAX_FDS; seen++) {
        const entry = files.readSync();
        if (entry === null) break;
        const path = link(`${folder}/${entry.name}`);
        if (path !== null && PINNING.some((kind) => kind.test(path))) return { file: path, unknown: null };
        yield;
      }
    } finally {
      files.closeSync();
    }
  } catch (error) {
    return { file: null, unknown: codeOf(error) };
  }
  return NOT_PINNED;
}

/** Looks at all of them now. */
export function findPinning(pid: number, proc?: string): PinSearch {
  const search = searchPinning(pid, proc);
  for (;;) {
    const { done, value } = search.next();
    if (done === true) return value;
  }
}

/** Whether this kernel has a driver whose files pin memory. None is unloaded while such a file is open. */
export function mayPin(proc = '/proc'): boolean {
  try {
    return ['misc', 'devices'].some((list) => PINNING_DRIVER.test(readKernelFile(`${proc}/${list}`)));
  } catch {
    return true;
  }
}

/** How many files a process has open; null where that cannot be told (before Linux 6.2, or it may not be looked at). */
export function openFileCount(pid: number, proc = '/proc'): number | null {
  try {
    return statSync(`${proc}/${pid}/fd`).size || null;
  } catch {
    return null;
  }
}

/** Null when it was closed meanwhile. */
function link(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}
