// A VM whose guest does what it is told step by step, as fast as it can: it looks at its rings without a pause, and
// uses a page the moment it may. Whenever it is checked, everything that it owns must be there.
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlClient } from '../../src/control/client.js';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from './balloon-driver.js';
import { Frontend, QEMU_PROTOCOL_FEATURES } from './frontend.js';
import { GuestRam, PAGE_BYTES, type GuestRegion, type RegionOptions } from './guest-ram.js';
import { StampedPages } from './stamped-pages.js';
import { ANY_VMM } from './vmm-orders.js';
import { bits, PROTOCOL_F, u32s } from './wire.js';
import { PATIENCE_MS } from './deadline.js';

const MIB = 2 ** 20;
/** Rings first, then memory that is always there, and some that is plugged in and out. */
const RINGS_BYTES = 4 * MIB;
const BUFFERS_GPA = 3 * MIB;
const FIXED_BYTES = 4 * MIB;
const PLUGGED_GPA = 2 ** 32;
const PLUGGED_BYTES = 2 * MIB;
const FIXED_PAGES = FIXED_BYTES / PAGE_BYTES;

/** Pages are numbered from 0. */
export const MODEL_PAGES = (FIXED_BYTES + PLUGGED_BYTES) / PAGE_BYTES;
/** The most that one buffer names. */
export const MODEL_PFNS = PAGE_BYTES / 4;
const ALL_PAGES: readonly number[] = Array.from({ length: MODEL_PAGES }, (_, page) => page);
/** An indirect table holds no more. */
const REPORT_RANGES = 32;

/** A backend that takes longer has to call. */
const SPIN_MS = 20;

/** `count` pages from `first` on, every `stride`-th; those that do not exist are left out. */
export interface Run {
  first: number;
  count: number;
  stride: number;
}

export type Step =
  | { kind: 'inflate' | 'deflate'; buffers: readonly Run[] }
  | { kind: 'exchange'; inflate: Run; deflate: Run }
  | { kind: 'use' | 'report'; run: Run }
  | { kind: 'allow' | 'unplug' | 'plug' | 'settle' }
  | { kind: 'wait' | 'pause' | 'inhibit'; ms: number }
  | { kind: 'reset'; ms: number; mustTellHost: boolean };

export interface ModelOptions {
  mustTellHost: boolean;
  /** Memory is announced region by region; else always as a whole table. */
  memorySlots: boolean;
  hugePageBytes?: number;
}

/** One buffer of page frame numbers on its way through a ring. */
interface Offer {
  role: 'inflate' | 'deflate';
  pages: readonly number[];
}

/** What it asks of the daemon. */
export type ModelControl = Pick<ControlClient, 'inhibit' | 'allow' | 'show'>;

export class ModelGuest {
  readonly #frontend: Frontend;
  readonly #pages: StampedPages;
  readonly #pluggable: RegionOptions;
  readonly #unitBytes: number;
  readonly #control: ModelControl;
  readonly #name: string;
  #plugged: GuestRegion | null;
  #driver!: BalloonDriver;
  #mustTellHost: boolean;
  #inhibited = false;

  private constructor(socketPath: string, control: ModelControl, name: string, options: ModelOptions) {
    const { hugePageBytes, memorySlots } = options;
    this.#control = control;
    this.#name = name;
    this.#mustTellHost = options.mustTellHost;
    this.#unitBytes = hugePageBytes ?? PAGE_BYTES;
    const ram = new GuestRam([{ gpa: 0, lenBytes: RINGS_BYTES }]);
    const [fixed, pluggable] = [
      { gpa: RINGS_BYTES, lenBytes: FIXED_BYTES, file: ram.createFile(FIXED_BYTES, hugePageBytes) },
      { gpa: PLUGGED_GPA, lenBytes: PLUGGED_BYTES, file: ram.createFile(PLUGGED_BYTES, hugePageBytes) },
    ] as const;
    ram.add(fixed);
    this.#plugged = ram.add(pluggable);
    this.#pluggable = pluggable;
    this.#pages = new StampedPages(
      [fixed, pluggable].map(({ gpa, file }) => ({ gpa, file, unitBytes: this.#unitBytes })),
    );
    const slots = bits(PROTOCOL_F.CONFIGURE_MEM_SLOTS);
    this.#frontend = new Frontend({
      socket: socketPath,
      ram,
      order: ANY_VMM,
      protocolFeatures: QEMU_PROTOCOL_FEATURES & ~(memorySlots ? 0n : slots),
    });
  }

  /** The VM `name` of the daemon behind the two sockets, with its driver running. */
  static async start(
    socketPath: string,
    control: ModelControl,
    name: string,
    options: ModelOptions,
  ): Promise<ModelGuest> {
    const guest = new ModelGuest(socketPath, control, name, options);
    try {
      await guest.#frontend.connect();
      await guest.#startDriver();
      // An order for the VM of that name before this one holds for this one.
      await control.allow(name);
    } catch (error) {
      guest.close();
      throw error;
    }
    return guest;
  }

  async perform(step: Step): Promise<void> {
    switch (step.kind) {
      case 'inflate':
      case 'deflate':
        await this.#tell(step.buffers.map((run) => ({ role: step.kind, pages: this.#present(run) })));
        break;
      case 'exchange': {
        const given = this.#present(step.inflate);
        const taken = this.#present(step.deflate).filter((page) => !given.includes(page));
        await this.#tell([
          { role: 'inflate', pages: given },
          { role: 'deflate', pages: taken },
        ]);
        break;
      }
      case 'use':
        for (const page of this.#owned(step.run)) this.#pages.use(page);
        break;
      case 'report':
        await this.#report(this.#owned(step.run));
        break;
      case 'inhibit':
        await this.#control.inhibit(this.#name, 'model');
        this.#inhibited = true;
        await this.#unchanged(step.ms);
        break;
      case 'allow':
        await this.#control.allow(this.#name);
        this.#inhibited = false;
        break;
      case 'unplug':
        if (this.#plugged === null) break;
        await this.#frontend.removeRegion(this.#plugged);
        this.#plugged = null;
        // The VMM may use what backed it for anything.
        this.#useGiven(ALL_PAGES.slice(FIXED_PAGES));
        break;
      case 'plug':
        this.#plugged ??= await this.#frontend.addRegion(this.#pluggable);
        break;
      case 'settle':
        // What a guest that need not tell has back may be in use, so what was not discarded by then never is.
        if (!this.#inhibited && this.#mustTellHost) await this.#untilFree();
        break;
      case 'wait':
        await (this.#inhibited ? this.#unchanged(step.ms) : sleep(step.ms));
        break;
      case 'pause':
        await this.#pause(step.ms);
        break;
      case 'reset':
        await this.#driver.reset();
        this.#useGiven(ALL_PAGES);
        await this.#unchanged(step.ms);
        this.#mustTellHost = step.mustTellHost;
        await this.#startDriver();
        break;
    }
  }

  /** Throws when something of the guest's is gone. */
  check(): void {
    const lost = this.#pages.lost();
    if (lost.length > 0) throw new Error(`pages of the guest were discarded: ${summary(lost)}`);
    const [violation] = this.#frontend.protocolViolations;
    if (violation !== undefined) throw new Error(violation);
  }

  /**
   * The connection ends; `gone` resolves when the daemon, or its VM, is no more. Whoever has the memory then uses all
   * of it, and nobody may take it away.
   */
  async end(gone: () => Promise<unknown>): Promise<void> {
    this.#frontend.close();
    await gone();
    this.#useGiven(ALL_PAGES);
    await this.#unchanged(70);
    this.check();
  }

  close(): void {
    this.#frontend.close();
    this.#pages.close();
  }

  async #startDriver(): Promise<void> {
    const optional = this.#mustTellHost ? 0n : bits(BALLOON_F.MUST_TELL_HOST);
    this.#driver = await BalloonDriver.start(this.#frontend, { features: LINUX_FEATURES & ~optional });
  }

  /** Offers all buffers with one kick for each queue, and does what each ack allows as soon as it is there. */
  async #tell(offers: readonly Offer[]): Promise<void> {
    const waiting = new Map<string, Offer>();
    for (const [n, offer] of offers.entries()) {
      if (offer.pages.length === 0) continue;
      const gpa = BUFFERS_GPA + n * PAGE_BYTES;
      const pfns = offer.pages.map((page) => this.#pages.pfn(page));
      this.#frontend.ram.write(gpa, u32s(...pfns));
      const head = this.#driver.ring(offer.role).add([{ gpa, len: 4 * pfns.length }], { publish: false });
      waiting.set(`${offer.role} ${head}`, offer);
      if (offer.role === 'inflate') for (const page of offer.pages) this.#pages.give(page);
    }
    if (this.#usesEarly) {
      for (const { role, pages } of offers) if (role === 'deflate') this.#useGiven(pages);
    }
    const roles = new Set([...waiting.values()].map(({ role }) => role));
    for (const role of roles) this.#driver.ring(role).kick();
    const spinUntil = performance.now() + SPIN_MS;
    while (waiting.size > 0) {
      const patient = performance.now() > spinUntil;
      for (const role of roles) {
        const ring = this.#driver.ring(role);
        if (ring.outstanding === 0) continue;
        for (const { head } of patient ? await ring.waitUsed(1) : ring.collectUsed()) {
          const offer = waiting.get(`${role} ${head}`);
          waiting.delete(`${role} ${head}`);
          if (offer !== undefined) this.#acked(offer);
        }
      }
    }
  }

  #acked({ role, pages }: Offer): void {
    if (role === 'deflate') this.#useGiven(pages);
    else if (!this.#mustTellHost) this.#mustBeFree(pages);
  }

  /** Ranges of pages that the guest does not look at until they are back; then it uses them. */
  async #report(pages: readonly number[]): Promise<void> {
    const ranges = runsOf(pages).slice(0, REPORT_RANGES);
    if (ranges.length === 0) return;
    const ring = this.#driver.ring('reporting');
    const chain = ranges.map(({ first, count }) => ({
      gpa: this.#pages.pfn(first) * PAGE_BYTES,
      len: count * PAGE_BYTES,
      writable: true,
    }));
    ring.add(chain, { indirect: true });
    ring.kick();
    const spinUntil = performance.now() + SPIN_MS;
    while (ring.outstanding > 0) {
      if (performance.now() > spinUntil) await ring.waitUsed(1);
      else ring.collectUsed();
    }
    const reported = ranges.flatMap(({ first, count }) => Array.from({ length: count }, (_, n) => first + n));
    this.#mustBeFree(reported);
    for (const page of reported) this.#pages.use(page);
  }

  /** These were discarded before they were acked. Larger backing pages may have to wait for their other parts. */
  #mustBeFree(pages: readonly number[]): void {
    if (this.#inhibited || this.#unitBytes > PAGE_BYTES) return;
    const kept = pages.filter((page) => !this.#pages.isBlank(page));
    if (kept.length > 0) throw new Error(`acked before they were discarded: ${summary(kept)}`);
  }

  async #pause(ms: number): Promise<void> {
    const bases = await this.#frontend.stop();
    await this.#unchanged(ms);
    await this.#frontend.start(
      this.#driver.ackedFeatures,
      this.#frontend.queues.map((queue) => ({ ...queue, base: bases.get(queue.index) ?? 0 })),
    );
  }

  /** What is in the balloon is discarded, all of it and nothing else, and nothing else is said to be owed. */
  async #untilFree(): Promise<void> {
    const wanted = this.#pages.settledBytes();
    const end = performance.now() + PATIENCE_MS;
    for (;;) {
      const allocated = this.#pages.allocatedBytes();
      const { pendingBytes } = (await this.#control.show(this.#name)).balloon;
      if (allocated === wanted.allocated && pendingBytes === wanted.waiting) return;
      if (performance.now() > end) {
        throw new Error(
          `${allocated} bytes stay allocated, ${pendingBytes} pending; the guest's pages need ` +
            `${wanted.allocated}, in which ${wanted.waiting} wait`,
        );
      }
      await sleep(2);
    }
  }

  /** Meanwhile nothing may be discarded, not even what is in the balloon. */
  async #unchanged(ms: number): Promise<void> {
    const before = this.#pages.allocatedBytes();
    await sleep(ms);
    const discarded = before - this.#pages.allocatedBytes();
    if (discarded !== 0) throw new Error(`${discarded} bytes were discarded when nothing may be`);
  }

  /**
   * virtio 1.3, 5.5.6: without VIRTIO_BALLOON_F_MUST_TELL_HOST "the guest is allowed to re-use pages previously given
   * to the balloon before the device has acknowledged their withdrawal".
   */
  get #usesEarly(): boolean {
    return !this.#mustTellHost;
  }

  #useGiven(pages: readonly number[]): void {
    for (const page of pages) if (this.#pages.isGiven(page)) this.#pages.use(page);
  }

  #present({ first, count, stride }: Run): number[] {
    const end = this.#plugged === null ? FIXED_PAGES : MODEL_PAGES;
    return Array.from({ length: count }, (_, n) => first + n * stride).filter(
      (page) => page >= 0 && page < end,
    );
  }

  #owned(run: Run): number[] {
    return this.#present(run).filter((page) => !this.#pages.isGiven(page));
  }
}

/** Of ascending pages; a run does not cross from one part of memory to the other. */
function runsOf(pages: readonly number[]): { first: number; count: number }[] {
  const runs: { first: number; count: number }[] = [];
  for (const page of pages) {
    const last = runs.at(-1);
    if (last !== undefined && page === last.first + last.count && page !== FIXED_PAGES) last.count++;
    else runs.push({ first: page, count: 1 });
  }
  return runs;
}

function summary(pages: readonly number[]): string {
  return `${pages.length} pages, ${pages.slice(0, 8).join(' ')}`;
}
