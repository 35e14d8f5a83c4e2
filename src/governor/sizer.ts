/**
 * Has the balloons of VMs with `size = "working-set"` follow the working sets of their guests. The governor says at each tick
 * which VMs these are. Between ticks each of them goes by itself: its guest is asked for statistics, the law of
 * src/policy/working-set.ts says which target follows, and how soon the guest is asked again.
 */
import { VmmReads } from '../host/vmm-io.js';
import { step, UNSIZED, type Sized, type SizeLimits } from '../policy/working-set.js';
import { moveWords, standingWords } from '../policy/working-set-words.js';
import type { GovernedVm, SizedDevice, StatsFigures } from './governed-vm.js';
import type { Room } from './host-view.js';

/** A guest that runs answers within that time. */
const ANSWER_MS = 2000;
/** A guest at rest whose VMM reads so much may have begun to work. The daemon looks at that without a word to the guest. */
const MUCH_READ_BYTES = 4 * 2 ** 20;
const READ_LOOK_SECONDS = 4;

/** A VM that is sized, with its floor and ceiling. */
export interface SizedVm {
  readonly vm: GovernedVm;
  readonly minBytes: number;
  readonly maxBytes: number;
}

interface Surroundings {
  /** Seconds of any one clock. */
  readonly now: () => number;
  /** The memory that the host can give now. */
  readonly room: () => Room;
  readonly proc: string;
}

export class Sizer {
  readonly #around: Surroundings;
  readonly #followed = new Map<string, Followed>();
  /** One timer for all VMs: a timer for each VM would wake the process up for each VM. */
  #readTimer: NodeJS.Timeout | undefined;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  /** Sizes these VMs from now on, and no others. */
  follow(all: readonly SizedVm[]): void {
    const names = new Set(all.map(({ vm }) => vm.name));
    for (const [name, followed] of this.#followed) {
      if (names.has(name)) continue;
      followed.close();
      this.#followed.delete(name);
    }
    for (const sized of all) {
      const device = sized.vm.playing('balloon');
      const { name } = sized.vm;
      const before = this.#followed.get(name);
      if (before?.device === device && before?.sized.vm === sized.vm) {
        before.sized = sized;
        continue;
      }
      before?.close();
      this.#followed.delete(name);
      if (device !== undefined) this.#followed.set(name, new Followed(sized, device, this.#around));
    }
    if (this.#followed.size > 0) {
      this.#readTimer ??= setInterval(() => this.#lookAtReads(), READ_LOOK_SECONDS * 1000).unref();
    } else {
      clearInterval(this.#readTimer);
      this.#readTimer = undefined;
    }
  }

  #lookAtReads(): void {
    for (const followed of this.#followed.values()) followed.lookAtReads();
  }

  /** Where the size of the VM stands, in words; null: it is not sized. */
  words(name: string): string | null {
    return this.#followed.get(name)?.words ?? null;
  }

  /** The working set of the VM, as far as the law knows it; null: it follows none, or not yet. */
  workingSetBytes(name: string): number | null {
    return this.#followed.get(name)?.workingSetBytes ?? null;
  }

  close(): void {
    this.follow([]);
  }
}

class Followed {
  sized: SizedVm;
  readonly device: SizedDevice;
  readonly #around: Surroundings;
  readonly #reads: VmmReads;
  /** The bytes that its VMM had read when the guest had answered; NaN: the guest is asked again soon, or asking tells nothing. */
  #readBytes = NaN;
  /** As long as asking for that reason changes nothing, so many bytes more are needed for the next time. */
  #muchReadBytes = MUCH_READ_BYTES;
  #last: Pick<Sized, 'state' | 'why'> = { state: UNSIZED, why: { kind: 'waits' } };
  #timer: NodeJS.Timeout | null = null;
  #closed = false;
  #asking = false;
  /** The statistics that the law saw last, and their moment by its clock. */
  #received: StatsFigures['receivedAt'] | null = null;
  #statsSeconds = NaN;

  constructor(sized: SizedVm, device: SizedDevice, around: Surroundings) {
    this.sized = sized;
    this.device = device;
    this.#around = around;
    this.#reads = new VmmReads(sized.vm.pid, around.proc);
    device.onActual = () => this.#tookItself();
    void this.#ask();
  }

  get words(): string {
    const { ramBytes, figures } = this.sized.vm;
    const { state, why } = this.#last;
    return standingWords(state, why, ramBytes - figures.actualBytes, this.#around.now());
  }

  /** The guest has it and little more while it rests or a probe takes a step. */
  get workingSetBytes(): number | null {
    const { ramBytes, figures } = this.sized.vm;
    const { state, why } = this.#last;
    const known = state.reached && state.phase !== 'grow' && why.kind !== 'blind';
    return known ? Math.max(0, ramBytes - figures.actualBytes) : null;
  }

  close(): void {
    this.#closed = true;
    this.device.onActual = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.device.refreshStats(ANSWER_MS);
    this.#asking = false;
    if (this.#closed) return;
    const againSeconds = this.#look();
    const { state, why } = this.#last;
    if (state.phase !== 'rest' || why.kind !== 'settled') this.#muchReadBytes = MUCH_READ_BYTES;
    this.#readBytes = againSeconds > READ_LOOK_SECONDS && why.kind !== 'blind' ? this.#reads.bytes : NaN;
    this.#timer = setTimeout(() => void this.#ask(), againSeconds * 1000).unref();
  }

  /** Asks a guest at rest whose VMM has read much since the guest was asked. */
  lookAtReads(): void {
    if (Number.isNaN(this.#readBytes) || this.#reads.bytes - this.#readBytes < this.#muchReadBytes) return;
    this.#muchReadBytes *= 2;
    void this.#ask();
  }

  /** The guest says another size of its balloon: where it took pages by itself, it needs more at once, and is watched from now on. */
  #tookItself(): void {
    const { state } = this.#last;
    if (!state.reached || this.sized.vm.figures.actualBytes >= state.targetBytes) return;
    this.#look();
    void this.#ask();
  }

  /** Does one step of the law; returns the seconds until the next one. */
  #look(): number {
    const { vm } = this.sized;
    const { now, room: roomNow } = this.#around;
    const at = now();
    const { targetBytes: before, actualBytes, stats, deflatesOnOom: givesOnOom } = vm.figures;
    const { features } = this.device;
    const allocatedBytes = features.includes('VIRTIO_BALLOON_F_REPORTING') ? vm.allocatedBytes : NaN;
    const sizes = { ramBytes: vm.ramBytes, targetBytes: before, actualBytes, givesOnOom, allocatedBytes };
    const reading = { ...sizes, ...this.#claims(stats, at) };
    const room = roomNow();
    const sized = step(this.#last.state, reading, this.#limits(room.bytes), at);
    this.#last = sized;
    room.bytes -= Math.max(0, before - sized.targetBytes);
    if (sized.targetBytes !== before) this.device.setSize(sized.targetBytes, moveWords(sized.why));
    return sized.againSeconds;
  }

  #limits(roomBytes: number): SizeLimits {
    const { vm, minBytes, maxBytes } = this.sized;
    return {
      leastTargetBytes: vm.ramBytes - maxBytes,
      mostTargetBytes: vm.ramBytes - minBytes,
      roomBytes,
    };
  }

  #claims(stats: StatsFigures | null, at: number) {
    if (stats === null) this.#statsSeconds = NaN;
    else if (stats.receivedAt !== this.#received) this.#statsSeconds = at - stats.ageSeconds;
    this.#received = stats?.receivedAt ?? null;
    const value = (name: string): number => stats?.values.get(`VIRTIO_BALLOON_S_${name}`) ?? NaN;
    const reclaimedBytes = value('ASYNC_RECLAIM') + value('DIRECT_RECLAIM');
    return {
      statsSeconds: this.#statsSeconds,
      freeBytes: value('MEMFREE'),
      availableBytes: value('AVAIL'),
      cacheBytes: value('CACHES'),
      reclaimedBytes,
      majorFaults: value('MAJFLT'),
      swappedInBytes: value('SWAP_IN'),
      swappedOutBytes: value('SWAP_OUT'),
      stalls: (stats?.values.get('VIRTIO_BALLOON_S_OOM_KILL') ?? 0) + value('ALLOC_STALL'),
      // Guests that tell of reclaim need no other signal.
      readBytes: Number.isNaN(reclaimedBytes) ? this.#reads.bytes : NaN,
    };
  }
}
