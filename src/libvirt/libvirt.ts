/**
 * libvirt, as libvirt-dbus offers it on the message bus of the system. src/daemon calls open(), and for each domain that it
 * finds describe() and adopt(). bus is the way to libvirt-dbus, domain a VMM that is adopted, and line has the calls of one
 * domain go one after another.
 */
import { VmmError } from '../../protocol/adopted.js';
import type { DbusSignal } from '../../protocol/dbus/messages.js';
import type { SentValue } from '../../protocol/dbus/values.js';
import { domainWords, LIST_ACTIVE, type DomainWords } from '../../protocol/libvirt/domain.js';
import { awayStep } from './away.js';
import { Bus } from './bus.js';
import { LibvirtDomain } from './domain.js';
import { CallLine } from './line.js';

const SERVICE = 'org.libvirt';
/** The domains of qemu:///system. */
const CONNECT = '/org/libvirt/QEMU';
const CONNECT_INTERFACE = 'org.libvirt.Connect';
const DOMAIN_INTERFACE = 'org.libvirt.Domain';
/** The interfaces of objects whose signals are heard, and the signal that the service began, or ended. */
const RULES = [
  `type='signal',sender='${SERVICE}',interface='${CONNECT_INTERFACE}',member='DomainEvent'`,
  `type='signal',sender='${SERVICE}',interface='${DOMAIN_INTERFACE}'`,
  `type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='${SERVICE}'`,
];

interface LibvirtObserver {
  /** A domain began, ended or changed. */
  changed(path: string, event: number): void;
  /** libvirt-dbus began or ended: domains may have changed meanwhile. */
  restarted(): void;
  /** A call for a domain found that libvirt is away. */
  away(error: VmmError): void;
  /** Called once, when the connection to the bus ended; the end of a sentence on why. */
  closed(why: string): void;
}

export class Libvirt {
  readonly #bus: Bus;
  readonly #version: string;
  readonly #line = new CallLine();
  /** Of each domain, also of one that was let go of while a call is overdue. */
  readonly #lines = new Map<string, CallLine>();
  readonly #domains = new Map<string, LibvirtDomain>();
  #away: VmmError | null = null;
  /** The question whether libvirt is there, which is under way for all domains. */
  #reaching: Promise<void> | null = null;
  #observer: LibvirtObserver | null = null;

  private constructor(bus: Bus, version: string) {
    this.#bus = bus;
    this.#version = version;
  }

  /** Rejects with VmmError: there is no bus, no libvirt-dbus, or no libvirtd. */
  static async open(path: string, observer: LibvirtObserver): Promise<Libvirt> {
    const bus = await Bus.open(path);
    try {
      for (const rule of RULES) await bus.subscribe(rule);
      const get = { destination: SERVICE, path: CONNECT, interface: 'org.freedesktop.DBus.Properties' };
      const asked = { ...get, member: 'Get', signature: 'ss', args: [CONNECT_INTERFACE, 'LibVersion'] };
      const [version] = await new CallLine().run('LibVersion', () => bus.call(asked));
      const libvirt = new Libvirt(bus, versionOf(version));
      libvirt.#observer = observer;
      bus.listen({
        signal: (signal) => libvirt.#hear(signal, observer),
        closed: (why) => {
          for (const domain of [...libvirt.#domains.values()]) domain.end(`the way to libvirt ended: ${why}`);
          observer.closed(why);
        },
      });
      return libvirt;
    } catch (error) {
      bus.close();
      throw error;
    }
  }

  get version(): string {
    return this.#version;
  }

  /** libvirt did not answer for its domains when it was asked last. */
  get isAway(): boolean {
    return this.#away !== null;
  }

  /** The objects of all domains that run or are paused. Rejects with VmmError: libvirt is away, which its domains hear. */
  async active(): Promise<readonly string[]> {
    try {
      const [paths] = await this.#line.run('ListDomains', () =>
        this.#call(CONNECT, CONNECT_INTERFACE, 'ListDomains', 'u', [LIST_ACTIVE]),
      );
      this.#setAway(null);
      return Array.isArray(paths) ? (paths as unknown[]).filter((path) => typeof path === 'string') : [];
    } catch (error) {
      if (error instanceof VmmError) this.#setAway(error);
      throw error;
    }
  }

  /** Rejects with VmmError, or XmlError. */
  async describe(path: string): Promise<DomainWords> {
    const [xml] = await this.#lineOf(path).run('GetXMLDesc', () =>
      this.#call(path, DOMAIN_INTERFACE, 'GetXMLDesc', 'u', [0]),
    );
    if (typeof xml !== 'string') throw new VmmError('libvirt describes no domain');
    return domainWords(xml);
  }

  /** The domain as a VMM, whose process is `pid`. */
  adopt(path: string, words: DomainWords, pid: number): LibvirtDomain {
    const domain = new LibvirtDomain({
      words,
      pid,
      version: this.#version,
      line: this.#lineOf(path),
      call: (member, signature, args) => this.#call(path, DOMAIN_INTERFACE, member, signature, args),
      away: () => this.#away,
      reach: () => (this.#reaching ??= this.#reach()),
      left: () => this.#domains.delete(path),
    });
    this.#domains.set(path, domain);
    return domain;
  }

  /** The domain is no more, whether libvirt said so or not. */
  ended(path: string): void {
    this.#domains.get(path)?.end('the domain ended');
    this.#lines.delete(path);
  }

  close(): void {
    this.#bus.close();
  }

  async #reach(): Promise<void> {
    try {
      const active = await this.active();
      // The event of its end may come after the answer to a call that it did not live to hear.
      for (const path of [...this.#domains.keys()]) if (!active.includes(path)) this.ended(path);
    } catch (error) {
      if (error instanceof VmmError) this.#observer?.away(error);
      throw error;
    } finally {
      this.#reaching = null;
    }
  }

  #setAway(error: VmmError | null): void {
    if (error?.message === this.#away?.message) return;
    this.#away = error;
    const says = error === null ? null : { why: error.message, step: awayStep(error) };
    for (const domain of this.#domains.values()) domain.peerAway(says);
  }

  #lineOf(path: string): CallLine {
    const line = this.#lines.get(path) ?? new CallLine();
    this.#lines.set(path, line);
    return line;
  }

  #call(
    path: string,
    from: string,
    member: string,
    signature: string,
    args: readonly SentValue[],
  ): Promise<readonly unknown[]> {
    return this.#bus.call({ destination: SERVICE, path, interface: from, member, signature, args });
  }

  #hear(signal: DbusSignal, observer: LibvirtObserver): void {
    if (signal.member === 'NameOwnerChanged') observer.restarted();
    else if (signal.interface === DOMAIN_INTERFACE) this.#domains.get(signal.path)?.hear(signal);
    else if (signal.member === 'DomainEvent') {
      const [path, event, detail] = signal.values;
      if (typeof path !== 'string' || typeof event !== 'number') return;
      this.#domains.get(path)?.lives(event, Number(detail));
      observer.changed(path, event);
    }
  }
}

/** libvirt's number of its version: 11003000 is 11.3.0. */
function versionOf(value: unknown): string {
  const number = typeof value === 'number' ? value : 0;
  const [major, minor, micro] = [number / 1e6, (number / 1000) % 1000, number % 1000].map(Math.floor);
  return `libvirt ${major}.${minor}.${micro}`;
}
