/**
 * The orders of all VMs by name, also of VMs that are not there, and the pause of the whole policy, in one document with a version. The book writes itself
 * down through `written` whenever it changes; reading it back takes the newest of several copies.
 */
import { isDeepStrictEqual } from 'node:util';
import { Type, type Static } from '../../protocol/json-schema.js';
import { Check } from 'typebox/schema';
import type { WallMs } from '../os/clock.js';
import { isEmpty, Orders, Since } from './orders.js';

/** Of the document below. A change of its meaning is a new version. */
const VERSION = 1;
/** Names that nobody gives a VM: the daemon made them up of a process, and they end with it. */
const MADE_UP = /^pid-\d+(-\d+)?$/;

/** Intervals of processes that are no more cost nothing while there are so few. */
const FEW_INTERVALS = 16;

/** Of a path of a socket. */
const MAX_PATH = 107;

const Mode = Type.Union([Type.Literal('observe'), Type.Literal('auto'), Type.Literal('off')]);

const Named = Type.Object({
  process: Type.String({ maxLength: 64 }),
  uuid: Type.Optional(Type.String({ maxLength: 64 })),
  name: Type.String({ minLength: 1, maxLength: 128 }),
  wanted: Type.String({ minLength: 1, maxLength: 128 }),
});
/** A VM by its process, and by its UUID where that is known: its name here, and the name that its VMM gave it. */
export type NamedVm = Readonly<Static<typeof Named>>;

const Document = Type.Object({
  version: Type.Literal(VERSION),
  /** Counts changes: the copy with the higher number is the newer one. */
  revision: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  vms: Type.Record(Type.String({ minLength: 1, maxLength: 128 }), Orders),
  /** The policy was paused for all VMs. Builds that know of no such order leave the field out when they write. */
  paused: Type.Optional(Type.Object({ since: Since })),
  /** An operator set the mode of the policy. Builds that know of no such order leave the field out when they write. */
  mode: Type.Optional(Type.Object({ word: Mode, since: Since })),
  /** The QMP sockets whose VMs an operator adopted. Builds that know of none leave the field out when they write. */
  adopted: Type.Optional(Type.Array(Type.String({ maxLength: MAX_PATH }))),
  /**
   * What an operator released that the configuration adopts: domains of libvirt by their names, and QMP sockets by their paths, which
   * begin with `/`. Builds that know of none leave the field out when they write.
   */
  released: Type.Optional(
    Type.Array(Type.Object({ name: Type.String({ minLength: 1, maxLength: 128 }), since: Since })),
  ),
  /** The names of VMs that might be taken for others. Builds that know of none leave the field out when they write. */
  names: Type.Optional(Type.Array(Named)),
  /**
   * The intervals of statistics, in seconds, that QEMUs were found with, by their processes: a daemon that is killed puts none
   * back. Builds that know of none leave the field out when they write.
   */
  intervals: Type.Optional(Type.Record(Type.String({ maxLength: 64 }), Type.Integer({ minimum: 0 }))),
});
export type BookDocument = Static<typeof Document>;
/** The mode of the policy that an operator set, and the wall time at which it was set. */
type ModeOrder = NonNullable<BookDocument['mode']>;

/** A document of the book, or why it cannot be read: a sentence without its subject, and the next step. */
type ReadBook = { document: BookDocument } | { unreadable: string; isNewer: boolean };

/** Reads the text of one copy. */
export function readBook(text: string): ReadBook {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return { unreadable: 'is damaged: order again what `balloonctl show` no longer lists', isNewer: false };
  }
  const version =
    typeof parsed === 'object' && parsed !== null && 'version' in parsed ? parsed.version : null;
  if (typeof version === 'number' && version > VERSION) {
    return {
      unreadable: `is of version ${version}, and this balloond knows ${VERSION}: start the newer balloond again, or order again what \`balloonctl show\` no longer lists`,
      isNewer: true,
    };
  }
  if (!Check(Document, parsed)) {
    return { unreadable: 'is damaged: order again what `balloonctl show` no longer lists', isNewer: false };
  }
  return { document: parsed };
}

export class OrderBook {
  /** Whether no copy was found, so that orders are known by the records of VMs alone. */
  readonly isNew: boolean;
  readonly #vms: Map<string, Orders>;
  readonly #written: (text: string) => void;
  #revision: number;
  #paused: WallMs | null;
  #mode: ModeOrder | null;
  #adopted: readonly string[];
  #released: ReadonlyMap<string, WallMs>;
  #named: readonly NamedVm[];
  #intervals: Readonly<Record<string, number>>;
  /** At the first note: many may be of processes that ended while no daemon ran. */
  #forgetAt = 1;

  /** `found`: the newest copy, or null. `written` is called with the whole document after each change. */
  constructor(found: BookDocument | null = null, written: (text: string) => void = () => undefined) {
    this.isNew = found === null;
    this.#vms = new Map(Object.entries(found?.vms ?? {}));
    this.#revision = found?.revision ?? 0;
    this.#paused = found?.paused?.since ?? null;
    this.#mode = found?.mode ?? null;
    this.#adopted = found?.adopted ?? [];
    this.#released = new Map((found?.released ?? []).map(({ name, since }) => [name, since]));
    this.#named = found?.names ?? [];
    this.#intervals = found?.intervals ?? {};
    this.#written = written;
  }

  of(name: string): Orders {
    return this.#vms.get(name) ?? {};
  }

  /** The names with orders, also of VMs that are not there. */
  get names(): string[] {
    return [...this.#vms.keys()];
  }

  hasOrders(name: string): boolean {
    return this.#vms.has(name);
  }

  /** Replaces the orders of a VM, and writes the book down. */
  change(name: string, orders: Orders): void {
    if (isEmpty(orders)) {
      if (!this.#vms.delete(name)) return;
    } else this.#vms.set(name, orders);
    this.#changed();
  }

  /** The wall time at which an operator paused the policy for all VMs; null: it is not paused. */
  get paused(): WallMs | null {
    return this.#paused;
  }

  /** Notes that the policy was paused for all VMs at `since`, or takes that back, and writes the book down. */
  pause(since: WallMs | null): void {
    if (since === this.#paused) return;
    this.#paused = since;
    this.#changed();
  }

  /** The mode of the policy that an operator set; null: that of the configuration holds. */
  get mode(): ModeOrder | null {
    return this.#mode;
  }

  /** Notes the mode that an operator set, or takes it back, and writes the book down. */
  setMode(mode: ModeOrder | null): void {
    this.#mode = mode;
    this.#changed();
  }

  /** The QMP sockets whose VMs an operator adopted. */
  get adopted(): readonly string[] {
    return this.#adopted;
  }

  /** Notes that an operator adopted the VM of a QMP socket, or released it, and writes the book down. */
  adopt(path: string, isAdopted: boolean): void {
    if (isAdopted === this.#adopted.includes(path)) return;
    this.#adopted = isAdopted ? [...this.#adopted, path] : this.#adopted.filter((one) => one !== path);
    this.#changed();
  }

  /** The domains of libvirt and the paths of QMP sockets that an operator released, and the wall times of these orders. */
  get released(): ReadonlyMap<string, WallMs> {
    return this.#released;
  }

  /** Notes that an operator released a domain or a path at `since`, or takes that back (null), and writes the book down. */
  release(name: string, since: WallMs | null): void {
    if ((since !== null) === this.#released.has(name)) return;
    const others = [...this.#released].filter(([one]) => one !== name);
    this.#released = new Map(since === null ? others : [...others, [name, since]]);
    this.#changed();
  }

  /** The names of VMs that might be taken for others. */
  get named(): readonly NamedVm[] {
    return this.#named;
  }

  /** Replaces these names, and writes the book down. */
  name(named: readonly NamedVm[]): void {
    if (isDeepStrictEqual(named, this.#named)) return;
    this.#named = named;
    this.#changed();
  }

  /** The interval of statistics that the QEMU of a process was found with, in seconds; undefined: none is noted. */
  foundInterval(process: string): number | undefined {
    return this.#intervals[process];
  }

  /**
   * Notes that interval, or forgets it (null), and writes the book down. Intervals of processes that are no more are forgotten
   * whenever the book has twice as many as it had after it forgot some: each look at a process costs a read of its file.
   */
  noteInterval(process: string, seconds: number | null, isThere: (process: string) => boolean): void {
    let others = Object.entries(this.#intervals).filter(([one]) => one !== process);
    if (others.length >= this.#forgetAt) {
      others = others.filter(([one]) => isThere(one));
      this.#forgetAt = Math.max(FEW_INTERVALS, 2 * others.length);
    }
    const now = Object.fromEntries(seconds === null ? others : [...others, [process, seconds]]);
    if (isDeepStrictEqual(now, this.#intervals)) return;
    this.#intervals = now;
    this.#changed();
  }

  /** The VM is gone: orders of a name that the daemon made up go with it. */
  forget(name: string): void {
    if (MADE_UP.test(name)) this.change(name, {});
  }

  /** The whole document. */
  text(): string {
    const vms = Object.fromEntries(this.#vms);
    const paused = this.#paused === null ? {} : { paused: { since: this.#paused } };
    const mode = this.#mode === null ? {} : { mode: this.#mode };
    const adopted = this.#adopted.length === 0 ? {} : { adopted: this.#adopted };
    const released =
      this.#released.size === 0
        ? {}
        : { released: [...this.#released].map(([name, since]) => ({ name, since })) };
    const names = this.#named.length === 0 ? {} : { names: this.#named };
    const intervals = Object.keys(this.#intervals).length === 0 ? {} : { intervals: this.#intervals };
    return JSON.stringify({
      version: VERSION,
      revision: this.#revision,
      vms,
      ...paused,
      ...mode,
      ...adopted,
      ...released,
      ...names,
      ...intervals,
    });
  }

  #changed(): void {
    this.#revision++;
    this.#written(this.text());
  }
}
