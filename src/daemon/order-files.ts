/**
 * Where the book of orders is written down: in a file in memory that outlives this process, for the next daemon, and in the
 * state directory, for the host's next boot. A copy that cannot be read is set aside, one that cannot be written is said
 * once; VMs are served all the same.
 */
import { existsSync, promises as fs, readFileSync, renameSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { refusal, type Instruction, type NextStep } from '../../protocol/control/refusal.js';
import { codeOf } from '../host/host-paths.js';
import type { Emit } from '../ops/event-log.js';
import type { FdStore } from '../ops/fd-store.js';
import { KeptText } from '../ops/kept-text.js';
import { SystemError } from '../os/errors.js';
import { OrderBook, readBook, type BookDocument } from '../vm/order-book.js';

const FILE = 'orders.json';
/** So long may an answer wait for the disk; the disk goes on behind it. */
const PATIENCE_MS = 2000;
/** Orders that are not on disk are written again after so long. */
const AGAIN_MS = 60_000;

const REMEDIES: Readonly<Record<string, Instruction>> = {
  ENOENT: 'create the state directory again',
  ENOTDIR: 'move the file away that is in the place of the state directory',
  EROFS: 'let the daemon write to the state directory',
  ENOSPC: 'move something else off its file system',
  EDQUOT: 'move something else off its file system',
  EACCES: 'give the state directory to the user of the daemon',
  EPERM: 'give the state directory to the user of the daemon',
};

/** Why orders are not written down, and what to do. */
interface OrderProblem {
  readonly text: string;
  readonly remedy: NextStep;
}

/** What is said while the files are opened, before anybody listens. */
interface OrderWarning {
  readonly event: 'orders-set-aside' | 'orders-not-kept';
  readonly message: string;
}

export class OrderFiles {
  readonly book: OrderBook;
  readonly warnings: readonly OrderWarning[];
  readonly #memory: KeptText;
  /** Null: there is none, or a file in it may not be touched. */
  #folder: string | null;
  #onDisk: string | null = null;
  #emit: Emit = () => undefined;
  /** The last failure of each place, which is said once until the place works again. */
  readonly #failed = new Map<'disk' | 'memory', OrderProblem>();
  /** A file that may not be touched, which was said when it was read. */
  #inTheWay: OrderProblem | null = null;
  readonly #endsWith: 'the host' | 'the keeper' | 'this daemon';
  readonly #againMs: number;
  readonly #patienceMs: number;
  #wanted: string | null = null;
  #writing: Promise<void> | null = null;
  #later: NodeJS.Timeout | null = null;

  /**
   * `store`: null where nobody keeps anything; it ends with the keeper where `byKeeper`, and else with the host.
   * `folder`: the state directory, or null. `againMs`: milliseconds until a write that failed is tried again; `patienceMs`:
   * milliseconds that kept() waits for the disk.
   */
  constructor(
    store: FdStore | null,
    folder: string | null,
    {
      byKeeper = false,
      againMs = AGAIN_MS,
      patienceMs = PATIENCE_MS,
    }: { byKeeper?: boolean; againMs?: number; patienceMs?: number } = {},
  ) {
    this.#memory = new KeptText(store, 'orders');
    this.#endsWith = store === null ? 'this daemon' : byKeeper ? 'the keeper' : 'the host';
    this.#againMs = againMs;
    this.#patienceMs = patienceMs;
    this.#folder = folder;
    const warnings: OrderWarning[] = [];
    const copies = [
      this.#readDisk(warnings),
      ...this.#memory.left.map((text) => this.#readMemory(text, warnings)),
    ];
    const newest = copies.reduce<BookDocument | null>(
      (best, copy) => ((copy?.revision ?? -1) > (best?.revision ?? -1) ? copy : best),
      null,
    );
    this.warnings = warnings;
    this.book = new OrderBook(newest, (text) => this.#write(text));
    this.#write(this.book.text());
  }

  /** Says from now on what cannot be written. */
  listen(emit: Emit): void {
    this.#emit = emit;
    for (const { event, message } of this.warnings) emit(event, message);
    for (const problem of this.#failed.values()) this.#tell(problem);
  }

  /** Why the orders that hold are not written down; null: they are. */
  get problem(): OrderProblem | null {
    return this.#failed.get('disk') ?? this.#failed.get('memory') ?? this.#inTheWay;
  }

  /** Writes what is not on disk yet. Resolves when all orders are on disk, or cannot be, or the disk takes long. */
  async kept(): Promise<void> {
    const onDisk = this.#folder === null || this.#onDisk !== null;
    if (this.#writing === null && (!onDisk || this.#failed.has('memory'))) this.#write(this.book.text());
    if (this.#writing === null) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, this.#patienceMs)));
    await Promise.race([this.#writing, late]);
    clearTimeout(timer);
  }

  #readMemory(text: string, warnings: OrderWarning[]): BookDocument | null {
    const read = readBook(text);
    if ('document' in read) return read.document;
    warnings.push({
      event: 'orders-set-aside',
      message: `the copy of the orders for VMs that the daemon before this one left ${read.unreadable}`,
    });
    return null;
  }

  #readDisk(warnings: OrderWarning[]): BookDocument | null {
    if (this.#folder === null) return null;
    const path = join(this.#folder, FILE);
    let why: string;
    let isNewer = false;
    try {
      // To open a pipe is to wait for its other end.
      if (statSync(path).isFIFO()) throw new SystemError(constants.errno.ENXIO, 'open', path);
      const text = readFileSync(path, 'utf8');
      const read = readBook(text);
      if ('document' in read) {
        this.#onDisk = text;
        return read.document;
      }
      why = read.unreadable;
      isNewer = read.isNewer;
    } catch (error) {
      const code = codeOf(error);
      if (code === 'ENOENT') return null;
      if (code === 'ENOTDIR') {
        this.#cannot(error);
        return null;
      }
      // Another file would take its name, and its orders would be lost.
      why = `cannot be read (${code}): order again what \`balloonctl show\` no longer lists`;
    }
    warnings.push({
      event: 'orders-set-aside',
      message: `the file of orders for VMs ${path} ${this.#setAside(path, why, isNewer)}`,
    });
    return null;
  }

  /** Moves the file out of the way, or leaves it alone where that cannot be. Returns the end of a sentence on it. */
  #setAside(path: string, why: string, isNewer: boolean): string {
    let aside = `${path}.set-aside`;
    for (let n = 2; existsSync(aside); n++) aside = `${path}.set-aside-${n}`;
    try {
      renameSync(path, aside);
      const back = isNewer ? `; run \`mv ${aside} ${path}\` just before the newer balloond starts` : '';
      return `is left as ${aside}, because it ${why}${back}`;
    } catch (error) {
      this.#folder = null;
      const code = codeOf(error);
      this.#inTheWay = {
        text: `orders for VMs are not on disk and end with ${this.#endsWith}, because ${path} cannot be read or moved away (${code})`,
        remedy: 'move that file away, and restart the daemon',
      };
      return `cannot be moved away (${code}) and stays as it is, because it ${why}; orders are not on disk until the file is moved away and the daemon restarted`;
    }
  }

  #write(text: string): void {
    this.#writeMemory(text);
    if (this.#folder === null || text === this.#onDisk) return;
    this.#onDisk = null;
    this.#wanted = text;
    this.#writing ??= this.#writeDisk(this.#folder).finally(() => (this.#writing = null));
  }

  #writeMemory(text: string): void {
    try {
      this.#memory.write(text);
      this.#failed.delete('memory');
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#say('memory', {
        text: `orders for VMs cannot be handed over to the next daemon: ${error.message}`,
        remedy: 'free memory on the host, and the next order is handed over with all others',
      });
    }
  }

  /** Whole or not at all: another file is written, and takes the name. What comes meanwhile is written next. */
  async #writeDisk(folder: string): Promise<void> {
    const path = join(folder, FILE);
    while (this.#wanted !== null) {
      const text = this.#wanted;
      this.#wanted = null;
      try {
        const file = await fs.open(`${path}.new`, 'w', 0o640);
        await finish(file, async () => {
          await file.writeFile(text);
          await file.sync();
        });
        await fs.rename(`${path}.new`, path);
        const directory = await fs.open(folder, 'r');
        await finish(directory, () => directory.sync());
        this.#onDisk = text;
        if (this.#failed.delete('disk'))
          this.#emit('orders-kept', `orders for VMs are on disk again (${path})`);
      } catch (error) {
        this.#cannot(error);
      }
    }
  }

  #cannot(error: unknown): void {
    this.#onDisk = null;
    this.#later ??= setTimeout(() => {
      this.#later = null;
      this.#write(this.book.text());
    }, this.#againMs).unref();
    const code = codeOf(error);
    const remedy = REMEDIES[code] ?? 'look at the state directory';
    this.#say('disk', {
      text: `orders for VMs are not on disk and end with ${this.#endsWith} (${this.#folder ?? ''}: ${code})`,
      remedy: `${remedy}, and the daemon writes the orders within a minute, or with the next order`,
    });
  }

  #say(place: 'disk' | 'memory', problem: OrderProblem): void {
    if (this.#failed.get(place)?.text === problem.text) return;
    this.#failed.set(place, problem);
    this.#tell(problem);
  }

  #tell({ text, remedy }: OrderProblem): void {
    this.#emit('orders-not-kept', refusal(text, remedy));
  }
}

async function finish(file: FileHandle, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } finally {
    await file.close();
  }
}

/** The state directory of the unit; the first, where it has several. Null: there is none. */
export function stateFolder({ STATE_DIRECTORY: folders = '' }: NodeJS.ProcessEnv): string | null {
  const [first = ''] = folders.split(':');
  return first === '' ? null : first;
}
