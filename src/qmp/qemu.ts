/**
 * QEMU's own words on its VM, and the commands that move its own balloon. Sizes are bytes. QEMU does not say whether the guest's
 * driver runs: x-query-virtio-status, which would, ends QEMU 11.1.3 by a failed assertion, and no command that begins with x- is
 * used here.
 */
import {
  BALLOON_TYPES,
  decodeGuestStats,
  INTERVAL_PROPERTY,
  MAX_INTERVAL_SECONDS,
  type QemuStats,
} from '../../protocol/qmp/balloon.js';
import { QmpError } from '../../protocol/qmp/error.js';
import { asCount, asObject } from '../../protocol/qmp/messages.js';
import type { QmpClient } from './client.js';

/** Devices that were given at the start or plugged in later, with an id and without one. */
const DEVICE_FOLDERS = ['/machine/peripheral', '/machine/peripheral-anon'];
const MAX_DEVICES = 4096;
/** The smallest size that QEMU takes for a guest: it refuses 0. */
const LEAST_GUEST_BYTES = 4096;

/** What holds for as long as the connection does. */
interface Fixed {
  readonly path: string;
  /** The name of the VM; null: it has none. */
  readonly name: string | null;
  /** The interval of statistics that was in force, in seconds; 0: QEMU asked for none. */
  readonly foundInterval: number;
}

/** All that QEMU says at one look. */
export interface QemuLook {
  readonly ramBytes: number;
  /** The memory that the guest has, without its balloon. */
  readonly guestBytes: number;
  /** The VM runs, and is not paused or about to come by migration. */
  readonly vmRuns: boolean;
  readonly stats: QemuStats;
}

export class QemuBalloon {
  constructor(
    readonly client: QmpClient,
    readonly fixed: Fixed,
  ) {}

  async look(): Promise<QemuLook> {
    const [ramBytes, guestBytes, status, stats] = await Promise.all([
      this.#ramBytes(),
      this.guestBytes(),
      this.client.execute('query-status'),
      this.stats(),
    ]);
    return { ramBytes, guestBytes, vmRuns: asObject(status)['running'] === true, stats };
  }

  /** The memory of the guest, its balloon included, as the balloon counts it: also DIMMs, and nothing of virtio-mem. */
  async #ramBytes(): Promise<number> {
    const [summary, devices] = await Promise.all([
      this.client.execute('query-memory-size-summary'),
      this.client.execute('query-memory-devices'),
    ]);
    const base = asCount(asObject(summary)['base-memory']) ?? 0;
    return list(devices).reduce<number>((sum, device) => {
      const { type, data } = asObject(device);
      return type === 'dimm' ? sum + (asCount(asObject(data)['size']) ?? 0) : sum;
    }, base);
  }

  /** The memory that the guest has, without its balloon. */
  async guestBytes(): Promise<number> {
    return sizeIn(await this.client.execute('query-balloon'));
  }

  async stats(): Promise<QemuStats> {
    return decodeGuestStats(await this.#get('guest-stats'));
  }

  /** Whether the driver was offered to give pages back by itself before its guest runs out of memory. */
  async deflatesOnOom(): Promise<boolean> {
    return (await this.#get('deflate-on-oom')) === true;
  }

  /** 0: QEMU asks no more. QEMU asks at once where it did not before, and knows whole seconds. */
  async setInterval(seconds: number): Promise<void> {
    const value = seconds === 0 ? 0 : Math.min(Math.max(1, Math.round(seconds)), MAX_INTERVAL_SECONDS);
    await this.client.execute('qom-set', { path: this.fixed.path, property: INTERVAL_PROPERTY, value });
  }

  /** The guest is to have this much memory. */
  async setGuest(bytes: number): Promise<void> {
    await this.client.execute('balloon', { value: Math.max(LEAST_GUEST_BYTES, bytes) });
  }

  #get(property: string): Promise<unknown> {
    return this.client.execute('qom-get', { path: this.fixed.path, property });
  }
}

/** Looks for the VM's balloon. Rejects with QmpError, also where QEMU has none. */
export async function findBalloon(client: QmpClient): Promise<QemuBalloon> {
  const path = await balloonPath(client);
  if (path === null) throw new QmpError('QEMU has no balloon of its own', 'DeviceNotActive');
  const [name, interval] = await Promise.all([
    client.execute('query-name'),
    client.execute('qom-get', { path, property: INTERVAL_PROPERTY }),
  ]);
  const { name: called } = asObject(name);
  return new QemuBalloon(client, {
    path,
    name: typeof called === 'string' && called !== '' ? called : null,
    foundInterval: asCount(interval) ?? 0,
  });
}

async function balloonPath(client: QmpClient): Promise<string | null> {
  for (const folder of DEVICE_FOLDERS) {
    const devices = list(await client.execute('qom-list', { path: folder })).slice(0, MAX_DEVICES);
    for (const device of devices) {
      const { name, type } = asObject(device);
      if (typeof name === 'string' && typeof type === 'string' && BALLOON_TYPES.has(type))
        return `${folder}/${name}`;
    }
  }
  return null;
}

/** The memory that the guest has, of an answer to query-balloon or an event BALLOON_CHANGE. Throws QmpError. */
export function sizeIn(value: unknown): number {
  const bytes = asCount(asObject(value)['actual']);
  if (bytes === null) throw new QmpError('QEMU says no size of its balloon that can be true');
  return bytes;
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}
