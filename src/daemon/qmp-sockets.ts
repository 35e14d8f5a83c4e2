/** The QMP sockets whose VMs are adopted: those that `[[qmp]]` names, which are looked for, and those that operators adopted. */
import { readdirSync, statSync, type Dirent } from 'node:fs';
import { isAbsolute } from 'node:path';
import type { AdoptedSocket } from '../../protocol/control/schema.js';
import { refusal } from '../../protocol/control/refusal.js';
import { RefusedError } from '../control/fleet.js';
import { globMatches } from '../policy/glob.js';
import { wallNow } from '../os/clock.js';
import type { OrderBook } from '../vm/order-book.js';
import type { AdoptedDevice } from '../vm/adopted-device.js';
import { Adoption, releasedView, type AdoptionOptions } from './adoption.js';
import { QMP_PATH_STEP, QmpWay } from './qmp-way.js';

/** Folders are looked into so often. */
const LOOK_MS = 2000;
/** Of one pattern: a folder of anything else is not taken for one of VMs. */
const MOST_PATHS = 4096;

interface QmpOptions extends AdoptionOptions {
  readonly book: OrderBook;
  /** The name of the VM that has the device. */
  readonly nameOf: (device: AdoptedDevice) => string | null;
  /** The paths of the sockets on which the daemon itself listens: no QEMU greets there, however long the daemon waits. */
  readonly ownSockets: () => readonly string[];
}

export class QmpSockets {
  readonly #options: QmpOptions;
  readonly #sockets = new Map<string, Adoption>();
  /** Those that operators adopt at this moment. */
  readonly #ordered = new Set<string>();
  #patterns: readonly string[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(options: QmpOptions) {
    this.#options = options;
  }

  /** Adopts the VMs of these sockets, and of those that operators adopted; of others it lets go. */
  configure(patterns: readonly string[]): void {
    this.#patterns = patterns;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = patterns.length === 0 ? null : setInterval(() => this.#look(), LOOK_MS).unref();
    this.#look();
  }

  list(): AdoptedSocket[] {
    const released = [...this.#options.book.released.keys()].filter((path) => this.#isConfigured(path));
    return [
      ...[...this.#sockets.values()].map((socket) => this.#view(socket)),
      ...released.map(releasedView),
    ];
  }

  /** The word of an operator, which holds until release(). Rejects with RefusedError. */
  async adopt(path: string): Promise<AdoptedSocket> {
    if (!isAbsolute(path))
      throw new RefusedError(refusal(`${path} is relative`, 'give a path that begins with /'));
    const { book } = this.#options;
    const isTakenBack = book.released.has(path) && this.#isConfigured(path);
    // Whether the VM runs at this moment or not.
    book.release(path, null);
    let socket = this.#sockets.get(path);
    if (socket === undefined) {
      if (this.#ownSockets().has(identity(path))) {
        throw new RefusedError(refusal(`${path} is a socket of the daemon itself`, QMP_PATH_STEP));
      }
      socket = this.#make(path);
      this.#ordered.add(path);
      await socket.start().finally(() => this.#ordered.delete(path));
      if (socket.device === null && !socket.waits) {
        this.#drop(socket);
        throw new RefusedError(socket.problem ?? refusal(`${path} is released again`, 'try again'));
      }
    }
    if (!isTakenBack) book.adopt(path, true);
    return this.#view(socket);
  }

  /** Takes that word back, and lets go of the VM; one that the configuration adopts stays alone until adopt(). Rejects with RefusedError. */
  async release(path: string): Promise<AdoptedSocket> {
    const { book } = this.#options;
    const socket = this.#sockets.get(path);
    if (socket === undefined) {
      if (book.released.has(path)) return releasedView(path);
      const all = [...this.#sockets.keys()].slice(0, 20).join(', ');
      const step = all === '' ? 'see balloonctl list' : (`choose one of ${all}` as const);
      throw new RefusedError(refusal(`no VM is adopted at ${path}`, step));
    }
    const view = this.#view(socket);
    // Both may name it.
    book.adopt(path, false);
    if (this.#isConfigured(path)) book.release(path, wallNow());
    this.#sockets.delete(path);
    await socket.end();
    return view;
  }

  /** Takes release() back, where that word is there. */
  takeBack(path: string): void {
    if (!this.#options.book.released.has(path)) return;
    this.#options.book.release(path, null);
    this.#look();
  }

  /** Lets go of all VMs, as the process ends. */
  async leave(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await Promise.all([...this.#sockets.values()].map((socket) => socket.end()));
  }

  #look(): void {
    const { released, adopted } = this.#options.book;
    const found = new Set([
      ...this.#patterns.flatMap(socketsAt).filter((path) => !released.has(path)),
      ...adopted,
      ...this.#ordered,
    ]);
    const fresh = [...found].filter((path) => !this.#sockets.has(path));
    const own = fresh.length === 0 ? new Set() : this.#ownSockets();
    for (const path of fresh) if (!own.has(identity(path))) void this.#make(path).start();
    for (const socket of this.#sockets.values()) {
      const { device, way } = socket;
      const { path } = way;
      // A socket that QEMU took away serves the connection that it has.
      if (!found.has(path) && (device === null || !this.#isConfigured(path))) this.#drop(socket);
    }
  }

  #ownSockets(): Set<string> {
    return new Set(this.#options.ownSockets().map(identity));
  }

  #isConfigured(path: string): boolean {
    return this.#patterns.some((pattern) => globMatches(pattern, path));
  }

  #make(path: string): Adoption {
    const { emit, make } = this.#options;
    const socket = new Adoption(new QmpWay(path), { emit, make });
    this.#sockets.set(path, socket);
    return socket;
  }

  #drop(socket: Adoption): void {
    this.#sockets.delete(socket.way.path);
    void socket.end();
  }

  #view({ way, device, problem }: Adoption): AdoptedSocket {
    const { path } = way;
    return {
      path,
      by: this.#isConfigured(path) ? 'configuration' : 'operator',
      vm: device === null ? null : this.#options.nameOf(device),
      problem: device === null ? problem : null,
    };
  }
}

/** The same for all names of one file; a path at which there is none stands for itself. */
function identity(path: string): string {
  const file = statSync(path, { throwIfNoEntry: false, bigint: true });
  return file === undefined ? path : `${file.dev}:${file.ino}`;
}

/** The sockets that a pattern finds; `*` and `?` stand for letters of one name. */
export function socketsAt(pattern: string): string[] {
  const parts = pattern.split('/').filter((part) => part !== '');
  const last = parts.pop() ?? '';
  let folders = ['/'];
  for (const part of parts) {
    folders = folders.flatMap((folder) => matching(folder, part).map(({ name }) => within(folder, name)));
    folders = folders.slice(0, MOST_PATHS);
  }
  const found = folders.flatMap((folder) =>
    matching(folder, last).flatMap((entry) => {
      const path = within(folder, entry.name);
      return isSocket(path, entry) ? [path] : [];
    }),
  );
  return found.slice(0, MOST_PATHS);
}

/** Several thousand in a look. */
function within(folder: string, name: string): string {
  return folder === '/' ? `/${name}` : `${folder}/${name}`;
}

type Entry = Pick<Dirent, 'name'> & Partial<Dirent>;

/** None where the folder may not be read. Hidden files are no VM's. */
function matching(folder: string, part: string): Entry[] {
  if (!/[*?]/.test(part)) return [{ name: part }];
  try {
    return readdirSync(folder, { withFileTypes: true }).filter(
      ({ name }) => !name.startsWith('.') && globMatches(part, name),
    );
  } catch {
    return [];
  }
}

/** Folders say so of most entries; of a link and of a name that was given, the file does. */
function isSocket(path: string, entry: Entry): boolean {
  if (entry.isSocket?.() === true) return true;
  try {
    return entry.isFile?.() !== true && statSync(path).isSocket();
  } catch {
    return false;
  }
}
