/**
 * The domains of libvirt whose VMs are adopted, where the configuration has `[libvirt]`. libvirt tells of domains that begin and
 * end, and is asked for all of them now and then, which also has libvirt-dbus connect to a libvirtd that was restarted.
 */
import { VmmError } from '../../protocol/adopted.js';
import type { AdoptedSocket } from '../../protocol/control/schema.js';
import { refusal, type NextStep } from '../../protocol/control/refusal.js';
import { DomainEvent } from '../../protocol/libvirt/domain.js';
import type { DomainProcesses } from '../host/domain-process.js';
import { awayStep } from '../libvirt/away.js';
import { Libvirt } from '../libvirt/libvirt.js';
import { globMatches } from '../policy/glob.js';
import { wallNow } from '../os/clock.js';
import type { OrderBook } from '../vm/order-book.js';
import type { AdoptedDevice } from '../vm/adopted-device.js';
import { RefusedError } from '../control/fleet.js';
import { Adoption, releasedView, type AdoptionOptions } from './adoption.js';
import { LibvirtWay } from './libvirt-way.js';

const LOOK_MS = 10_000;
/** While libvirt is away. */
const LOOK_AWAY_MS = 2000;
const FIRST_MS = 1000;
const MOST_MS = 60_000;

interface LibvirtSettings {
  /** The path of the socket of the bus. */
  readonly bus: string;
  /** Patterns of the names of the domains. */
  readonly domains: readonly string[];
}

interface LibvirtOptions extends AdoptionOptions {
  readonly book: OrderBook;
  readonly processes: DomainProcesses;
  readonly serves: (pid: number) => boolean;
  /** The name of the VM that has the device. */
  readonly nameOf: (device: AdoptedDevice) => string | null;
}

export class LibvirtDomains {
  readonly #options: LibvirtOptions;
  /** By the paths of their objects. */
  readonly #adoptions = new Map<string, Adoption>();
  #settings: LibvirtSettings | null = null;
  #libvirt: Libvirt | null = null;
  #timer: NodeJS.Timeout | null = null;
  #waitMs = FIRST_MS;
  /** Told last; empty: libvirt answers, null: nothing is told. */
  #told: string | null = null;
  #problem: { readonly text: string; readonly remedy: NextStep } | null = null;
  #opening = false;

  constructor(options: LibvirtOptions) {
    this.#options = options;
  }

  /** Adopts these domains; of others it lets go. Null: of all. */
  configure(settings: LibvirtSettings | null): void {
    const before = this.#settings;
    this.#settings = settings;
    if (settings === null || before?.bus !== settings.bus) {
      this.#letGo();
      if (settings !== null) void this.#open();
      return;
    }
    for (const [path, { way }] of this.#adoptions) if (!this.#wants(way.path)) this.#drop(path);
    void this.#look();
  }

  /** Why the domains of libvirt are not known; null: they are, or need not be. */
  get problem(): { readonly text: string; readonly remedy: NextStep } | null {
    return this.#problem;
  }

  /** Those that are adopted or are to be. */
  list(): AdoptedSocket[] {
    const all = [...this.#adoptions.values()].filter(({ isWanted }) => isWanted);
    const released = [...this.#options.book.released.keys()]
      .filter((name) => !name.startsWith('/'))
      .map(pathOf);
    return [
      ...all.map((adoption) => this.#view(adoption)),
      ...released.filter((path) => this.#isConfigured(path)).map(releasedView),
    ];
  }

  /** The word of an operator, who takes release() back. Rejects with RefusedError. */
  async adopt(name: string): Promise<AdoptedSocket> {
    // An order that stands since another configuration is taken back all the same.
    this.#options.book.release(name, null);
    this.#refuseOthers(name);
    const path = pathOf(name);
    let adoption = this.#named(name);
    if (adoption?.isWanted === false) {
      const [object] = [...this.#adoptions].find(([, one]) => one === adoption) ?? [];
      if (object !== undefined && this.#libvirt !== null) {
        this.#drop(object);
        adoption = this.#make(this.#libvirt, object);
        await adoption.start();
      }
    }
    if (adoption !== undefined) return this.#view(adoption);
    const away = this.#problem;
    const problem =
      away === null
        ? refusal(`no domain ${name} runs`, `start it (virsh start ${name}), and it is adopted`)
        : refusal(away.text, away.remedy);
    return { path, by: 'configuration', vm: null, problem };
  }

  /** The word of an operator, which holds until adopt(): lets go of the domain. Rejects with RefusedError. */
  async release(name: string): Promise<AdoptedSocket> {
    this.#refuseOthers(name);
    this.#options.book.release(name, wallNow());
    const adoption = this.#named(name);
    if (adoption === undefined) return releasedView(pathOf(name));
    const view = this.#view(adoption);
    for (const [object, one] of this.#adoptions) if (one === adoption) this.#adoptions.delete(object);
    await adoption.end();
    void this.#look();
    return view;
  }

  /** The same as adopt(), where the word is there and whatever the configuration says. */
  takeBack(name: string): void {
    if (!this.#options.book.released.has(name)) return;
    if (this.#isConfigured(pathOf(name))) void this.adopt(name);
    else this.#options.book.release(name, null);
  }

  /** Lets go of all VMs, as the process ends. */
  async leave(): Promise<void> {
    this.#settings = null;
    await Promise.all([...this.#adoptions.values()].map((adoption) => adoption.end()));
    this.#letGo();
  }

  #letGo(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const path of [...this.#adoptions.keys()]) this.#drop(path);
    const libvirt = this.#libvirt;
    this.#libvirt = null;
    libvirt?.close();
    this.#told = null;
    this.#problem = null;
  }

  async #open(): Promise<void> {
    const settings = this.#settings;
    if (settings === null || this.#opening) return;
    this.#opening = true;
    try {
      const libvirt = await Libvirt.open(settings.bus, {
        changed: (path, event) => this.#changed(path, event),
        restarted: () => void this.#look(),
        away: (error) => this.#away(libvirt, error),
        closed: (why) => this.#closed(libvirt, why),
      });
      this.#opening = false;
      if (this.#settings?.bus !== settings.bus) {
        libvirt.close();
        return void this.#open();
      }
      this.#libvirt = libvirt;
      await this.#look();
    } catch (error) {
      this.#opening = false;
      this.#fail(error, settings.bus);
      this.#again(() => this.#open());
    }
  }

  #closed(libvirt: Libvirt, why: string): void {
    if (this.#libvirt !== libvirt) return;
    this.#letGo();
    this.#fail(new VmmError(why), this.#settings?.bus ?? '');
    this.#again(() => this.#open());
  }

  #away(libvirt: Libvirt, error: VmmError): void {
    if (this.#libvirt !== libvirt) return;
    this.#fail(error, this.#settings?.bus ?? '');
    this.#again(() => this.#look(), LOOK_AWAY_MS);
  }

  /** Takes up what began, and lets go of what ended. */
  async #look(): Promise<void> {
    const libvirt = this.#libvirt;
    if (libvirt === null) return;
    try {
      const active = new Set(await libvirt.active());
      if (this.#libvirt !== libvirt) return;
      this.#works(libvirt, active.size);
      for (const path of active) this.#found(libvirt, path);
      for (const path of [...this.#adoptions.keys()]) if (!active.has(path)) this.#ended(path);
    } catch (error) {
      if (this.#libvirt !== libvirt) return;
      this.#fail(error, this.#settings?.bus ?? '');
    }
    this.#again(() => this.#look(), libvirt.isAway ? LOOK_AWAY_MS : LOOK_MS);
  }

  #found(libvirt: Libvirt, path: string): void {
    if (this.#adoptions.has(path)) return;
    void this.#make(libvirt, path).start();
  }

  #make(libvirt: Libvirt, path: string): Adoption {
    const { emit, make, processes, serves } = this.#options;
    const wants = (name: string): boolean => this.#wants(pathOf(name));
    const way = new LibvirtWay(path, { libvirt, processes, serves, wants });
    const adoption = new Adoption(way, { emit, make });
    this.#adoptions.set(path, adoption);
    return adoption;
  }

  #named(name: string): Adoption | undefined {
    return [...this.#adoptions.values()].find(({ way }) => way.path === pathOf(name));
  }

  #view({ way, device, problem }: Adoption): AdoptedSocket {
    return {
      path: way.path,
      by: 'configuration',
      vm: device === null ? null : this.#options.nameOf(device),
      problem: device === null ? problem : null,
    };
  }

  /** Throws RefusedError: the configuration says that the domain is left alone. */
  #refuseOthers(name: string): void {
    if (this.#settings === null) {
      throw new RefusedError(
        refusal(
          `no VM is adopted as ${name}, and the configuration has no [libvirt]`,
          'give the path of the QMP socket of the VM, or add [libvirt] for domains of libvirt, then run balloonctl reload',
        ),
      );
    }
    if (this.#isConfigured(pathOf(name))) return;
    throw new RefusedError(
      refusal(
        `the configuration does not name the domain ${name}`,
        'add it to the domains of [libvirt], then run balloonctl reload',
      ),
    );
  }

  #changed(path: string, event: number): void {
    if (event === DomainEvent.STOPPED || event === DomainEvent.CRASHED) this.#ended(path);
    else if (event === DomainEvent.STARTED && this.#libvirt !== null) this.#found(this.#libvirt, path);
  }

  #ended(path: string): void {
    this.#libvirt?.ended(path);
    this.#drop(path);
  }

  #drop(path: string): void {
    const adoption = this.#adoptions.get(path);
    this.#adoptions.delete(path);
    void adoption?.end();
  }

  #wants(path: string): boolean {
    return this.#isConfigured(path) && !this.#options.book.released.has(domainOf(path) ?? '');
  }

  #isConfigured(path: string): boolean {
    const patterns = this.#settings?.domains ?? [];
    return patterns.some((pattern) => globMatches(`libvirt:${pattern}`, path));
  }

  #works(libvirt: Libvirt, count: number): void {
    this.#waitMs = FIRST_MS;
    this.#problem = null;
    if (this.#told === '') return;
    this.#told = '';
    const many = count === 1 ? '1 domain runs' : `${count} domains run`;
    this.#options.emit('libvirt-found', `${libvirt.version} answers; ${many}`, { domains: count });
  }

  /** Once for each reason. */
  #fail(error: unknown, bus: string): void {
    if (!(error instanceof VmmError)) throw error;
    const text = `the daemon cannot look at the domains of libvirt, since ${error.message} (bus ${bus})`;
    this.#problem = { text, remedy: awayStep(error) };
    // The bus numbers its clients.
    const reason = error.message.replace(/":1\.\d+"/g, '');
    if (reason === this.#told) return;
    this.#told = reason;
    this.#options.emit('libvirt-failed', refusal(text, awayStep(error)));
  }

  #again(work: () => Promise<void>, afterMs = this.#waitMs): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#settings === null) return;
    this.#timer = setTimeout(() => void work(), afterMs).unref();
    if (afterMs === this.#waitMs) this.#waitMs = Math.min(2 * this.#waitMs, MOST_MS);
  }
}

const PREFIX = 'libvirt:';

function pathOf(name: string): string {
  return `${PREFIX}${name}`;
}

/** The name of the domain whose path in the control API that is; null: it is no domain. */
export function domainOf(path: string): string | null {
  return path.startsWith(PREFIX) ? path.slice(PREFIX.length) : null;
}
