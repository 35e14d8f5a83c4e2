/**
 * The limits of one VM's cgroup, as its operator or the policy wants them. While they follow, they are raised before the
 * guest may use more, and lowered after it cannot. All that fails is said and leaves the VM alone.
 */
import { Type, type Static } from '../../protocol/json-schema.js';
import type { LimitRequest, LimitWord, VmView } from '../../protocol/control/schema.js';
import {
  byField,
  byName,
  LIMIT_NAMES,
  LIMITS,
  type LimitField,
  type LimitName,
} from '../../protocol/control/limits.js';
import {
  isAbove,
  isGone,
  type Cgroup,
  type CgroupReading,
  type Limit,
  type LimitsNow,
} from '../host/cgroup.js';
import { codeOf } from '../host/host-paths.js';
import type { Emit } from '../ops/event-log.js';
import { monotonicNow, msSince, type Monotonic } from '../os/clock.js';
import type { VmCgroup } from './cgroup.js';
import { sentence, type Diagnosis } from './diagnosis.js';
import { followLimits, mayUseBytes, nextLimit, ownBytes, type GuestUse } from './limits-plan.js';
import { gone, LimitError, noCgroup, refused, refuseToKill, sizeOf, tooLow } from './limits-words.js';

const Bytes = Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]);
const Knob = Type.Object({
  /** The limit that was there before the first change. */
  found: Bytes,
  wanted: Type.Union([Bytes, Type.Literal('follow')]),
});
type Knob = Static<typeof Knob>;

/** What the next daemon has to know of limits; null: they were never touched. */
export const LimitsRecord = Type.Union([
  Type.Object({ path: Type.String(), ...byField(() => Type.Optional(Knob)) }),
  Type.Null(),
]);
export type LimitsRecord = Static<typeof LimitsRecord>;

/** Limits that were ordered for an earlier process and do not hold for this one are tried again after so long. */
const AGAIN_MS = 60_000;
/** How long after a discard limits are lowered: an inflate is many discards. */
const SETTLE_MS = 1000;

interface LimitsContext {
  readonly cgroup: VmCgroup;
  readonly emit: Emit;
  readonly use: () => GuestUse;
  /** Writes record() down, before anything that it says is done. */
  readonly save: () => void;
}

type Changed = Partial<Record<LimitField, Limit>>;

export class VmLimits {
  readonly #context: LimitsContext;
  readonly #knobs = new Map<LimitName, Knob>();
  #own = 0;
  #applied: LimitsNow | null = null;
  #timer: NodeJS.Timeout | null = null;
  #following = false;
  #failed: Diagnosis | null = null;
  /** When limits that were ordered for an earlier process were refused for this one; null: none are owed. */
  #owedSince: Monotonic | null = null;
  /** A write was refused, and none was taken since. */
  #refused = false;
  #pressureUnknown = false;
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(context: LimitsContext) {
    this.#context = context;
  }

  /** Goes on where the daemon before this one ended, unless it does already. */
  resume(found: LimitsRecord): void {
    if (found === null || this.touched) return;
    this.#context.cgroup.hold(found.path);
    for (const name of LIMIT_NAMES) {
      const knob = found[LIMITS[name].field];
      if (knob !== undefined) this.#knobs.set(name, knob);
    }
    if (this.#follows) this.#startFollowing();
  }

  record(): LimitsRecord {
    const cgroup = this.touched ? this.#context.cgroup.find() : null;
    if (cgroup === null) return null;
    const knobs = [...this.#knobs].map(([name, knob]) => [LIMITS[name].field, knob] as const);
    return { path: cgroup.path, ...Object.fromEntries(knobs) };
  }

  /** The cgroup in the control API; null when the VM has none of its own. */
  view(): VmView['cgroup'] {
    const cgroup = this.#context.cgroup.find();
    const now = cgroup === null ? null : this.#now(cgroup);
    return cgroup === null || now === null ? null : { path: cgroup.path, ...now };
  }

  limitsView(): VmView['limits'] {
    const { reason } = this.#context.cgroup;
    const diagnosis = this.#failed ?? (reason === null ? null : noCgroup(reason));
    return {
      ...byName((name) => this.#wanted(name)),
      mayUseBytes: mayUseBytes(this.#context.use()),
      problem: this.#failed === null ? reason : sentence(this.#failed),
      diagnosis,
    };
  }

  /** Whether limits can be set, as far as that is known: they are not tried for it. */
  get writable(): boolean {
    return !this.#refused || this.#context.cgroup.writable;
  }

  /** Why limits that were asked for do not hold, or harm; null: all is well, or none were. */
  problem(): Diagnosis | null {
    if (!this.touched && this.#owedSince === null) return null;
    return this.#failed ?? tooLow(this.#knobs.get('max')?.wanted, mayUseBytes(this.#context.use()));
  }

  /** Whether any limit is other than it was found. */
  get touched(): boolean {
    return this.#knobs.size > 0;
  }

  /**
   * Throws LimitError. Resolves when the kernel has taken the limits; requests are served one after the other. `by` is
   * the party that asks.
   */
  request(asked: LimitRequest, by: 'operator' | 'policy' = 'operator'): Promise<void> {
    const done = this.#last.then(() => this.#request(asked, by));
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** A request of an earlier day does not hold, for this reason; it is said once. */
  failed(diagnosis: Diagnosis): void {
    this.#owedSince = monotonicNow();
    const message = sentence(diagnosis);
    if (this.#failed !== null && sentence(this.#failed) === message) return;
    this.#failed = diagnosis;
    this.#context.emit('limit-failed', message, { code: diagnosis.code });
  }

  /** It is time to ask once more for limits that an earlier process had. */
  get areOwed(): boolean {
    return this.#owedSince !== null && msSince(this.#owedSince) > AGAIN_MS;
  }

  /**
   * To be called before the guest is allowed to use more: limits that follow are raised before this returns.
   * `targetBytes`: the target that it is going to hear of.
   */
  allow(why: string, targetBytes?: number): void {
    if (!this.#follows || this.#applied === null) return;
    const use = this.#use(targetBytes);
    const wanted = followLimits(mayUseBytes(use), this.#own, use.ramBytes);
    const short = LIMIT_NAMES.some((name) => {
      const { field } = LIMITS[name];
      const applied = this.#applied?.[field] ?? null;
      return this.#knobs.get(name)?.wanted === 'follow' && applied !== null && applied < wanted[field];
    });
    if (short) this.#follow(why, use);
  }

  /** To be called when the guest may use less: limits that follow are lowered a while later. */
  settle(): void {
    if (!this.#follows || this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#follow('inflated');
    }, SETTLE_MS).unref();
  }

  /** To be called now and then: the VMM's own memory changes, too. */
  readonly check = (): void => {
    if (this.#follows) this.#follow('checked');
  };

  /** The VM is gone or is no longer served: the limits that were found are put back. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopFollowing();
    const cgroup = this.touched ? this.#context.cgroup.find() : null;
    if (cgroup === null) return;
    for (const [name, { found }] of this.#knobs) {
      const { field } = LIMITS[name];
      const from = this.#now(cgroup)?.[field];
      if (from === undefined) return;
      const said = (): void => this.#say({ [field]: from }, { [field]: found }, 'restored');
      const failed = (error: unknown): void => {
        if (isGone(error)) return;
        this.#context.emit('limit-failed', sentence(refused(cgroup.path, error)), { code: codeOf(error) });
      };
      if (isAbove(from, found)) {
        // The kernel reclaims for it, so it is done on a thread.
        cgroup.set({ [field]: found }).then(said, failed);
        continue;
      }
      try {
        cgroup.put({ [field]: found });
        said();
      } catch (error) {
        failed(error);
      }
    }
  }

  get #follows(): boolean {
    return LIMIT_NAMES.some((name) => this.#knobs.get(name)?.wanted === 'follow');
  }

  #wanted(name: LimitName): VmView['limits'][LimitName] {
    const knob = this.#knobs.get(name);
    return knob === undefined ? null : (knob.wanted ?? 'max');
  }

  async #request(asked: LimitRequest, by: string): Promise<void> {
    if (this.#closed) {
      throw new LimitError({ code: 'cgroup-gone', text: 'the VM is gone', remedy: 'see balloonctl list' });
    }
    if (!this.touched && Object.values(asked).every((word) => word === 'restore')) {
      // As they were found, whether there is a cgroup or not.
      this.#failed = null;
      this.#owedSince = null;
      return;
    }
    const { cgroup: own } = this.#context;
    const cgroup = own.find(true);
    if (cgroup === null) throw new LimitError(noCgroup(own.reason));
    if (!own.writable) await own.openAccess(cgroup);
    const read = this.#read(cgroup);
    if (read === null) throw new LimitError(this.#lost(cgroup));
    if (asked.max !== undefined) refuseToKill(asked.max, read);
    this.#failed = null;
    try {
      await this.#turnAll(cgroup, asked, read, by);
      this.#owedSince = null;
    } finally {
      if (!this.#follows) this.#stopFollowing();
      if (!this.touched) own.release();
    }
  }

  /** All knobs to what is asked, or none. */
  async #turnAll(cgroup: Cgroup, asked: LimitRequest, read: CgroupReading, by: string): Promise<void> {
    const turned: { name: LimitName; before: LimitWord }[] = [];
    try {
      for (const name of LIMIT_NAMES) {
        const word = asked[name];
        if (word === undefined) continue;
        const before = this.#wanted(name) ?? 'restore';
        await this.#turn(cgroup, name, word, read[LIMITS[name].field], by);
        turned.push({ name, before });
      }
    } catch (error) {
      for (const { name, before } of turned) {
        const now = this.#now(cgroup)?.[LIMITS[name].field] ?? null;
        // Where that is refused, too, an event said what was set.
        await this.#turn(cgroup, name, before, now, 'refused').catch(() => undefined);
      }
      // The request is refused, so nothing is owed.
      this.#failed = null;
      throw error;
    }
  }

  /** One knob to what is asked. The limit that was found is written down before it is changed. */
  async #turn(cgroup: Cgroup, name: LimitName, word: LimitWord, from: Limit, by: string): Promise<void> {
    const { field } = LIMITS[name];
    const before = this.#knobs.get(name);
    const found = before === undefined ? from : before.found;
    if (word === 'restore' && before === undefined) return;
    const to = word === 'restore' ? found : word === 'max' || word === 'follow' ? null : word;
    this.#knobs.set(name, { found, wanted: word === 'follow' ? word : to });
    this.#context.cgroup.hold();
    this.#context.save();
    try {
      if (word === 'follow') {
        this.#startFollowing();
        if (this.#failed !== null) throw new LimitError(this.#failed);
        return;
      }
      await cgroup.set({ [field]: to });
      this.#refused = false;
      if (word === 'restore') this.#knobs.delete(name);
      const took = this.#now(cgroup)?.[field] ?? null;
      this.#say({ [field]: from }, { [field]: took }, word === 'restore' ? 'restored' : by);
    } catch (error) {
      if (before === undefined) this.#knobs.delete(name);
      else this.#knobs.set(name, before);
      if (error instanceof LimitError) throw error;
      this.#refused = !isGone(error);
      throw new LimitError(isGone(error) ? this.#lost(cgroup) : refused(cgroup.path, error));
    } finally {
      this.#context.save();
    }
  }

  #startFollowing(): void {
    this.#follow('follow');
    if (this.#following || !this.touched) return;
    this.#following = true;
    const code = this.#context.cgroup.watch(this.check);
    if (code === null || this.#pressureUnknown) return;
    this.#pressureUnknown = true;
    this.#context.emit('pressure-unknown', `memory.pressure of the VM cannot be waited for: ${code}`, {
      code,
    });
  }

  #stopFollowing(): void {
    this.#context.cgroup.unwatch(this.check);
    this.#following = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#applied = null;
  }

  #use(targetBytes?: number): GuestUse {
    const use = this.#context.use();
    return targetBytes === undefined ? use : { ...use, targetBytes: Math.min(use.targetBytes, targetBytes) };
  }

  /** One look, and one step: up as far as needed, down as far as nothing has to be reclaimed for it. */
  #follow(why: string, use = this.#use()): void {
    const cgroup = this.#context.cgroup.find();
    if (cgroup === null || this.#closed) return;
    try {
      const read = cgroup.read();
      if (read === null) {
        this.#lost(cgroup);
        return;
      }
      const mayUse = mayUseBytes(use);
      this.#own = ownBytes(read.stat, mayUse, use.sharesMemory);
      const wanted = followLimits(mayUse, this.#own, use.ramBytes);
      const changed: Changed = {};
      for (const [name, knob] of this.#knobs) {
        const { field } = LIMITS[name];
        if (knob.wanted !== 'follow') continue;
        const next = nextLimit(read[field], wanted[field], read.currentBytes);
        if (next === read[field]) continue;
        cgroup.put({ [field]: next });
        changed[field] = next;
      }
      this.#applied = { ...byField((name) => read[LIMITS[name].field]), ...changed };
      this.#failed = null;
      this.#refused = false;
      const details = { mayUseBytes: mayUse, ownBytes: this.#own, currentBytes: read.currentBytes };
      if (Object.keys(changed).length > 0) this.#say(read, changed, why, details);
    } catch (error) {
      this.#fail(cgroup, error);
    }
  }

  #say(from: Changed, to: Changed, why: string, more: Record<string, unknown> = {}): void {
    const fields: Record<string, unknown> = { why };
    const words: string[] = [];
    for (const name of LIMIT_NAMES) {
      const { field, file } = LIMITS[name];
      if (to[field] === undefined) continue;
      fields[`${name}FromBytes`] = from[field] ?? null;
      fields[`${name}ToBytes`] = to[field];
      words.push(`${file} ${sizeOf(from[field] ?? null)} -> ${sizeOf(to[field])}`);
    }
    this.#context.emit('limit-set', `${words.join(', ')} (${why})`, { ...fields, ...more });
  }

  /** Said once for each error code until a write succeeds. */
  #fail(cgroup: Cgroup, error: unknown): void {
    if (isGone(error)) {
      this.#lost(cgroup);
      return;
    }
    this.#refused = true;
    const diagnosis = refused(cgroup.path, error);
    const message = sentence(diagnosis);
    if (this.#failed === null || sentence(this.#failed) !== message) {
      this.#context.emit('limit-failed', message, { code: codeOf(error) });
    }
    this.#failed = diagnosis;
  }

  #lost(cgroup: Cgroup): Diagnosis {
    const diagnosis = gone(cgroup.path);
    if (this.touched) this.#context.emit('limit-failed', sentence(diagnosis), { code: 'ENOENT' });
    this.#stopFollowing();
    this.#knobs.clear();
    this.#context.cgroup.lost();
    this.#context.save();
    return diagnosis;
  }

  #read(cgroup: Cgroup): CgroupReading | null {
    try {
      return cgroup.read();
    } catch (error) {
      this.#fail(cgroup, error);
      return null;
    }
  }

  #now(cgroup: Cgroup): ReturnType<Cgroup['limits']> {
    try {
      return cgroup.limits();
    } catch {
      return null;
    }
  }
}
