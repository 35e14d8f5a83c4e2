/** A domain that libvirt runs, with QEMU's own balloon, as a VMM that is adopted. */
import {
  VmmError,
  type AdoptedVmm,
  type PeerAway,
  type VmmLook,
  type VmmObserver,
  type VmmStats,
} from '../../protocol/adopted.js';
import type { DbusSignal } from '../../protocol/dbus/messages.js';
import type { SentValue } from '../../protocol/dbus/values.js';
import {
  AFFECT_LIVE,
  decodeDomainStats,
  decodeMemoryStats,
  DomainEvent,
  STATE_EVENTS,
  KIB,
  STATS_BALLOON,
  STATS_STATE,
  stoppedWords,
  type DomainMemory,
  type DomainWords,
} from '../../protocol/libvirt/domain.js';
import type { CallLine } from './line.js';

/** Calls a method of the domain's object. */
type CallDomain = (
  member: string,
  signature: string,
  args: readonly SentValue[],
) => Promise<readonly unknown[]>;

interface DomainParts {
  readonly words: DomainWords;
  readonly pid: number;
  /** The version of libvirt. */
  readonly version: string;
  readonly line: CallLine;
  readonly call: CallDomain;
  /** Why libvirt answers for no domain; null: it does, as far as is known. */
  readonly away: () => VmmError | null;
  /** Asks libvirt itself. Rejects with VmmError: it is away. */
  readonly reach: () => Promise<void>;
  /** To be called once, when nobody listens any more. */
  readonly left: () => void;
}

export class LibvirtDomain implements AdoptedVmm {
  readonly pid: number;
  readonly version: string;
  readonly name: string;
  readonly uuid: string | null;
  readonly foundInterval: number;
  readonly deflatesOnOom: boolean;
  readonly isThrottled = false;
  readonly #parts: DomainParts;
  #observer: VmmObserver | null = null;
  #ended = false;

  constructor(parts: DomainParts) {
    const { words, pid, version } = parts;
    this.pid = pid;
    this.version = version;
    this.name = words.name;
    this.uuid = words.uuid === '' ? null : words.uuid.toLowerCase();
    this.foundInterval = words.balloon?.periodSeconds ?? 0;
    this.deflatesOnOom = words.balloon?.deflatesOnOom ?? false;
    this.#parts = parts;
  }

  listen(observer: VmmObserver): void {
    this.#observer = observer;
  }

  async look(): Promise<VmmLook> {
    const [stats] = await this.#call('GetStats', 'uu', STATS_STATE | STATS_BALLOON, 0);
    const { ramBytes, guestBytes, ...rest } = decodeDomainStats(stats);
    if (ramBytes === null || guestBytes === null) throw new VmmError('libvirt says no size of the domain');
    return { ...rest, ramBytes, guestBytes };
  }

  async guestBytes(): Promise<number> {
    const { guestBytes } = await this.#memory();
    if (guestBytes === null) throw new VmmError('libvirt says no size of the balloon');
    return guestBytes;
  }

  async stats(): Promise<VmmStats> {
    return (await this.#memory()).stats;
  }

  async setInterval(seconds: number): Promise<void> {
    const period = seconds === 0 ? 0 : Math.max(1, Math.round(seconds));
    await this.#call('SetMemoryStatsPeriod', 'iu', period, AFFECT_LIVE);
  }

  async setGuest(bytes: number): Promise<void> {
    await this.#call('SetMemory', 'tu', Math.max(1, Math.floor(bytes / KIB)), AFFECT_LIVE);
  }

  close(): void {
    this.end('the daemon let go of the domain');
  }

  /** The domain, or the way to libvirt, is no more; a sentence on that. */
  end(why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#parts.left();
    this.#observer?.closed({ why, fault: null });
  }

  /** libvirt is away; null: it is back. */
  peerAway(says: PeerAway | null): void {
    this.#observer?.peerAway(says);
  }

  /** A signal of the domain's own object. */
  hear({ member, values }: DbusSignal): void {
    const observer = this.#observer;
    if (observer === null) return;
    const [actual] = values;
    if (member === 'BalloonChange' && typeof actual === 'number' && Number.isSafeInteger(actual)) {
      observer.sized(actual * KIB);
    } else if (member === 'Reboot') observer.reset();
    else if (member === 'DeviceAdded' || member === 'DeviceRemoved') observer.changed();
  }

  /** An event of the domain's life. */
  lives(event: number, detail: number): void {
    if (event === DomainEvent.STOPPED) this.end(stoppedWords(detail));
    else if (STATE_EVENTS.includes(event)) this.#observer?.changed(event === DomainEvent.RESUMED);
  }

  async #memory(): Promise<DomainMemory> {
    const [stats] = await this.#call('MemoryStats', 'u', 0);
    return decodeMemoryStats(stats);
  }

  #call(member: string, signature: string, ...args: readonly SentValue[]): Promise<readonly unknown[]> {
    if (this.#ended) return Promise.reject(new VmmError('the domain ended'));
    return this.#parts.line.run(member, () => this.#ask(member, signature, args));
  }

  /** A call that is refused because libvirtd ended is made again where libvirtd is back: each call may come twice. */
  async #ask(member: string, signature: string, args: readonly SentValue[]): Promise<readonly unknown[]> {
    const { call, away, reach } = this.#parts;
    const absent = away();
    if (absent !== null) throw absent;
    try {
      return await call(member, signature, args);
    } catch (error) {
      if (!(error instanceof VmmError) || error.errorClass === null) throw error;
      await reach();
      if (this.#ended) throw new VmmError('the domain ended');
      return await call(member, signature, args);
    }
  }
}
