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
import type { AdoptedDevice } from '../vm/adopted-device.js';
import { Adoption, type AdoptionOptions } from './adoption.js';
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
    return all.map(({ way, device, problem }) => ({
      path: way.path,
      by: 'configuration',
      vm: device === null ? null : this.#options.nameOf(device),
      problem: device === null ? problem : null,
    }));
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
    const { emit, make, processes, serves } = this.#options;
    const wants = (name: string): boolean => this.#wants(`libvirt:${name}`);
    const way = new LibvirtWay(path, { libvirt, processes, serves, wants });
    const adoption = new Adoption(way, { emit, make });
    this.#adoptions.set(path, adoption);
    void adoption.start();
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
    if (error.message === this.#told) return;
    this.#told = error.message;
    this.#options.emit('libvirt-failed', refusal(text, awayStep(error)));
  }

  #again(work: () => Promise<void>, afterMs = this.#waitMs): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#settings === null) return;
    this.#timer = setTimeout(() => void work(), afterMs).unref();
    if (afterMs === this.#waitMs) this.#waitMs = Math.min(2 * this.#waitMs, MOST_MS);
  }
}
