/**
 * QEMU's own words on its VM, and the commands that move its own balloon. Sizes are bytes. QEMU does not say whether the guest's
 * driver runs: x-query-virtio-status, which would, ends QEMU 11.1.3 by a failed assertion, and no command that begins with x- is
 * used here.
 */
import {
  VmmError,
  type AdoptedVmm,
  type VmmLook,
  type VmmObserver,
  type VmmStats,
} from '../../protocol/adopted.js';
import { refusal } from '../../protocol/control/refusal.js';
import {
  BALLOON_TYPES,
  decodeGuestStats,
  INTERVAL_PROPERTY,
  MAX_INTERVAL_SECONDS,
} from '../../protocol/qmp/balloon.js';
import { asCount, asObject, type Json } from '../../protocol/qmp/messages.js';
import type { QmpClient } from './client.js';

/** Devices that were given at the start or plugged in later, with an id and without one. */
const DEVICE_FOLDERS = ['/machine/peripheral', '/machine/peripheral-anon'];
const MAX_DEVICES = 4096;
/** The smallest size that QEMU takes for a guest: it refuses 0. */
const LEAST_GUEST_BYTES = 4096;

/** What holds for as long as the connection does. */
interface Fixed extends Pick<AdoptedVmm, 'name' | 'uuid' | 'foundInterval' | 'deflatesOnOom'> {
  /** Of the balloon in QEMU's tree of objects. */
  readonly path: string;
}

class QemuBalloon implements AdoptedVmm {
  readonly pid: number;
  readonly version: string;
  readonly name: string | null;
  readonly uuid: string | null;
  readonly foundInterval: number;
  readonly deflatesOnOom: boolean;
  readonly #client: QmpClient;
  readonly #path: string;
  #observer: VmmObserver | null = null;
  #unplugged = false;

  constructor(client: QmpClient, { path, name, uuid, foundInterval, deflatesOnOom }: Fixed) {
    this.pid = client.pid;
    this.version = `QEMU ${client.version}`;
    this.name = name;
    this.uuid = uuid;
    this.foundInterval = foundInterval;
    this.deflatesOnOom = deflatesOnOom;
    this.#client = client;
    this.#path = path;
  }

  get isThrottled(): boolean {
    return this.#client.throttled;
  }

  listen(observer: VmmObserver): void {
    this.#observer = observer;
    this.#client.listen({
      event: (name, data) => this.#event(observer, name, data),
      throttled: () => observer.throttled(),
      closed: (error) => this.#closed(error),
    });
  }

  close(): void {
    this.#client.close();
  }

  async look(): Promise<VmmLook> {
    const [ramBytes, guestBytes, status, stats] = await Promise.all([
      this.#ramBytes(),
      this.guestBytes(),
      this.#client.execute('query-status'),
      this.stats(),
    ]);
    return { ramBytes, guestBytes, vmRuns: asObject(status)['running'] === true, stats };
  }

  /** The memory of the guest, its balloon included, as the balloon counts it: also DIMMs, and nothing of virtio-mem. */
  async #ramBytes(): Promise<number> {
    const [summary, devices] = await Promise.all([
      this.#client.execute('query-memory-size-summary'),
      this.#client.execute('query-memory-devices'),
    ]);
    const base = asCount(asObject(summary)['base-memory']) ?? 0;
    return list(devices).reduce<number>((sum, device) => {
      const { type, data } = asObject(device);
      return type === 'dimm' ? sum + (asCount(asObject(data)['size']) ?? 0) : sum;
    }, base);
  }

  /** The memory that the guest has, without its balloon. */
  async guestBytes(): Promise<number> {
    return sizeIn(await this.#client.execute('query-balloon'));
  }

  async stats(): Promise<VmmStats> {
    return decodeGuestStats(await this.#get('guest-stats'));
  }

  /** 0: QEMU asks no more. QEMU asks at once where it did not before, and knows whole seconds. */
  async setInterval(seconds: number): Promise<void> {
    const value = seconds === 0 ? 0 : Math.min(Math.max(1, Math.round(seconds)), MAX_INTERVAL_SECONDS);
    await this.#client.execute('qom-set', { path: this.#path, property: INTERVAL_PROPERTY, value });
  }

  /** The guest is to have this much memory. */
  async setGuest(bytes: number): Promise<void> {
    await this.#client.execute('balloon', { value: Math.max(LEAST_GUEST_BYTES, bytes) });
  }

  #get(property: string): Promise<unknown> {
    return this.#client.execute('qom-get', { path: this.#path, property });
  }

  #event(observer: VmmObserver, name: string, data: Json): void {
    switch (name) {
      case 'BALLOON_CHANGE':
        try {
          observer.sized(sizeIn(data));
        } catch (error) {
          if (!(error instanceof VmmError)) throw error;
          observer.failed(error);
        }
        return;
      case 'RESET':
        observer.reset();
        return;
      // None of these four says whether the VM runs: RESUME also comes for a guest that sleeps on (findings/qmp-sleep-says-no-stop.sh).
      case 'RESUME':
        observer.changed(true);
        return;
      case 'STOP':
      case 'SUSPEND':
      case 'WAKEUP':
      case 'MEMORY_DEVICE_SIZE_CHANGE':
      case 'ACPI_DEVICE_OST':
        observer.changed();
        return;
      case 'DEVICE_DELETED':
        this.#unplugged = data['path'] === this.#path;
        if (this.#unplugged) this.#client.close();
    }
  }

  #closed(error: VmmError | null): void {
    const { path } = this.#client;
    const why = this.#unplugged ? 'the balloon was unplugged' : `the QMP connection to ${path} ended`;
    const broken = `the daemon closed the QMP connection to ${path}, since ${error?.message}`;
    const fault = error === null ? null : refusal(broken, 'look for the program that listens there');
    this.#observer?.closed({ why, fault });
  }
}

/** Looks for the VM's balloon. Rejects with VmmError, also where QEMU has none. */
export async function findBalloon(client: QmpClient): Promise<AdoptedVmm> {
  const path = await balloonPath(client);
  if (path === null) throw new VmmError('QEMU has no balloon of its own', 'DeviceNotActive');
  const get = (property: string): Promise<unknown> => client.execute('qom-get', { path, property });
  const [name, uuid, interval, deflates] = await Promise.all([
    client.execute('query-name'),
    client.execute('query-uuid'),
    get(INTERVAL_PROPERTY),
    get('deflate-on-oom'),
  ]);
  const { name: called } = asObject(name);
  return new QemuBalloon(client, {
    path,
    name: typeof called === 'string' && called !== '' ? called : null,
    uuid: uuidIn(uuid),
    foundInterval: asCount(interval) ?? 0,
    deflatesOnOom: deflates === true,
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

/** The memory that the guest has, of an answer to query-balloon or an event BALLOON_CHANGE. Throws VmmError. */
function sizeIn(value: unknown): number {
  const bytes = asCount(asObject(value)['actual']);
  if (bytes === null) throw new VmmError('QEMU says no size of its balloon that can be true');
  return bytes;
}

/** A QEMU without a UUID says one of zeros. */
function uuidIn(answer: unknown): string | null {
  const { UUID: uuid } = asObject(answer);
  return typeof uuid === 'string' && /^[\da-f-]{36}$/i.test(uuid) && /[1-9a-f]/i.test(uuid)
    ? uuid.toLowerCase()
    : null;
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}
