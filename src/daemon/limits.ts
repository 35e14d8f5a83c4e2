import { Type, type Static } from 'typebox';
import type { LimitRequest, LimitWord, VmView } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { isAbove, isGone, VmCgroup, type CgroupReading, type Limit } from '../host/cgroup.js';
import { findVmCgroup } from '../host/find-cgroup.js';
import { codeOf, type HostPaths } from '../host/host-paths.js';
import type { Pressure, PressureTrigger } from '../host/pressure.js';
import type { Emit } from '../ops/event-log.js';
import { isWritable, openAccess } from './limit-access.js';
import { followLimits, mayUseBytes, nextLimit, ownBytes, type GuestUse } from './limit-plan.js';

/** A limit that cannot be: the message says why and what to do. */
export class LimitError extends Error {
  override readonly name = 'LimitError';
}

const Bytes = Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]);
const Knob = Type.Object({
  /** What was there before the first change. */
  found: Bytes,
  wanted: Type.Union([Bytes, Type.Literal('follow')]),
});
type Knob = Static<typeof Knob>;
const NAMES = ['highBytes', 'maxBytes'] as const;
type Name = (typeof NAMES)[number];

/** What the next daemon has to know; null: the limits were never touched. */
export const LimitsRecord = Type.Union([
  Type.Object({ path: Type.String(), highBytes: Type.Optional(Knob), maxBytes: Type.Optional(Knob) }),
  Type.Null(),
]);
export type LimitsRecord = Static<typeof LimitsRecord>;

/** How long after a discard limits are lowered: an inflate is many discards. */
const SETTLE_MS = 1000;

export interface LimitsContext {
  pid: number;
  /** A cgroup that holds others as well may be limited. */
  shared: boolean;
  emit: Emit;
  use: () => GuestUse;
  /** Writes record() down, before anything that it says is done. */
  save: () => void;
  paths: HostPaths;
}

/**
 * The limits of one VM's cgroup, as an operator wants them. While they follow, they are raised before the guest may use
 * more, and lowered after it cannot. All that fails is said and leaves the VM alone.
 */
export class VmLimits {
  readonly #context: LimitsContext;
  readonly #paths: HostPaths;
  readonly #knobs: Record<Name, Knob | undefined> = { highBytes: undefined, maxBytes: undefined };
  #cgroup: VmCgroup | null = null;
  #reason: string | null = null;
  #own = 0;
  #applied: { highBytes: Limit; maxBytes: Limit } | null = null;
  #timer: NodeJS.Timeout | null = null;
  #trigger: PressureTrigger | null = null;
  #failed: string | null = null;
  /** A write was refused, and none was taken since. */
  #refused = false;
  #pressureUnknown = false;
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(context: LimitsContext, found: LimitsRecord) {
    this.#context = context;
    this.#paths = context.paths;
    if (found === null) return;
    const { path, ...knobs } = found;
    this.#cgroup = new VmCgroup(path, this.#paths.cgroup);
    Object.assign(this.#knobs, knobs);
  }

  record(): LimitsRecord {
    if (this.#cgroup === null || !this.#touched) return null;
    const { highBytes, maxBytes } = this.#knobs;
    return {
      path: this.#cgroup.path,
      ...(highBytes !== undefined && { highBytes }),
      ...(maxBytes !== undefined && { maxBytes }),
    };
  }

  /** Goes on where the daemon before this one ended. */
  resume(): void {
    if (this.#following) this.#startFollowing();
  }

  /** Of `show`. Null when the VM has no cgroup of its own. */
  view(): VmView['cgroup'] {
    const cgroup = this.#locate();
    const now = cgroup === null ? null : this.#now(cgroup);
    return cgroup === null || now === null ? null : { path: cgroup.path, ...now };
  }

  /** Of the VM's cgroup. */
  pressure(): Pressure | null {
    return this.#locate()?.pressure() ?? null;
  }

  limitsView(): VmView['limits'] {
    const wanted = (name: Name) => {
      const knob = this.#knobs[name];
      return knob === undefined ? null : (knob.wanted ?? 'max');
    };
    return {
      high: wanted('highBytes'),
      max: wanted('maxBytes'),
      mayUseBytes: mayUseBytes(this.#context.use()),
      problem: this.#failed ?? this.#reason,
    };
  }

  /** Whether limits can be set, as far as that is known: they are not tried for it. */
  get writable(): boolean {
    return !this.#refused || (this.#cgroup !== null && isWritable(this.#cgroup));
  }

  /** Why limits that were asked for are not, or harm; null: all is well, or none were. */
  problem(): string | null {
    if (!this.#touched) return null;
    if (this.#failed !== null) return this.#failed;
    const mayUse = mayUseBytes(this.#context.use());
    const max = this.#knobs.maxBytes?.wanted;
    if (typeof max !== 'number' || max >= mayUse) return null;
    return `memory.max is ${formatSize(max)} and the guest may use ${formatSize(mayUse)}: the kernel kills the VM when the guest does so; raise the limit, let the limit follow, or set a larger balloon`;
  }

  /**
   * Throws LimitError. Resolves when the kernel has taken the limits; requests are served one after the other. `by` is
   * who asks.
   */
  request(asked: LimitRequest, by: 'operator' | 'policy' = 'operator'): Promise<void> {
    const done = this.#last.then(() => this.#request(asked, by));
    this.#last = done.catch(() => undefined);
    return done;
  }

  /**
   * To be called before the guest is allowed to use more: limits that follow are raised before this returns.
   * `targetBytes`: the target that it is going to hear of.
   */
  allow(why: string, targetBytes?: number): void {
    if (!this.#following || this.#applied === null) return;
    const use = this.#use(targetBytes);
    const wanted = followLimits(mayUseBytes(use), this.#own, use.ramBytes);
    const short = NAMES.some((name) => {
      const applied = this.#applied?.[name] ?? null;
      return this.#knobs[name]?.wanted === 'follow' && applied !== null && applied < wanted[name];
    });
    if (short) this.#follow(why, use);
  }

  /** To be called when the guest may use less: limits that follow are lowered a while later. */
  settle(): void {
    if (!this.#following || this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#follow('inflated');
    }, SETTLE_MS).unref();
  }

  /** To be called now and then: the VMM's own memory changes, too. */
  check(): void {
    if (this.#following) this.#follow('checked');
  }

  /** The VM is gone or is no longer served: what was found is put back. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopFollowing();
    const cgroup = this.#cgroup;
    if (cgroup === null || !this.#touched) return;
    for (const name of NAMES) {
      const knob = this.#knobs[name];
      if (knob === undefined) continue;
      const from = this.#now(cgroup)?.[name];
      if (from === undefined) return;
      const said = (): void => this.#say({ [name]: from }, { [name]: knob.found }, 'restored');
      const failed = (error: unknown): void => {
        if (!isGone(error))
          this.#context.emit('limit-failed', refusal(cgroup, error), { code: codeOf(error) });
      };
      if (isAbove(from, knob.found)) {
        // The kernel reclaims for it, so it is done on a thread.
        cgroup.set({ [name]: knob.found }).then(said, failed);
        continue;
      }
      try {
        cgroup.put({ [name]: knob.found });
        said();
      } catch (error) {
        failed(error);
      }
    }
  }

  get #touched(): boolean {
    return NAMES.some((name) => this.#knobs[name] !== undefined);
  }

  get #following(): boolean {
    return NAMES.some((name) => this.#knobs[name]?.wanted === 'follow');
  }

  async #request(asked: LimitRequest, by: string): Promise<void> {
    if (this.#closed) throw new LimitError('the VM is gone: see balloonctl list');
    const cgroup = this.#locate(true);
    if (cgroup === null)
      throw new LimitError(`${this.#reason ?? 'the VM has no cgroup'}: see LIMITS in balloond(8)`);
    if (!isWritable(cgroup)) await openAccess(cgroup, this.#paths);
    const read = this.#read(cgroup);
    if (read === null) throw new LimitError(this.#lost(cgroup));
    if (asked.max !== undefined) refuseToKill(asked.max, read);
    this.#failed = null;
    for (const [name, word] of [
      ['highBytes', asked.high],
      ['maxBytes', asked.max],
    ] as const) {
      if (word !== undefined) await this.#turn(cgroup, name, word, read[name], by);
    }
    if (!this.#following) this.#stopFollowing();
  }

  /** One knob to what is asked. What was found is written down before it is changed. */
  async #turn(cgroup: VmCgroup, name: Name, word: LimitWord, from: Limit, by: string): Promise<void> {
    const before = this.#knobs[name];
    const found = before === undefined ? from : before.found;
    if (word === 'restore' && before === undefined) return;
    const to = word === 'restore' ? found : word === 'max' || word === 'follow' ? null : word;
    this.#knobs[name] = { found, wanted: word === 'follow' ? word : to };
    this.#context.save();
    try {
      if (word === 'follow') {
        this.#startFollowing();
        if (this.#failed !== null) throw new LimitError(this.#failed);
        return;
      }
      await cgroup.set({ [name]: to });
      this.#refused = false;
      if (word === 'restore') this.#knobs[name] = undefined;
      const took = this.#now(cgroup)?.[name] ?? null;
      this.#say({ [name]: from }, { [name]: took }, word === 'restore' ? 'restored' : by);
    } catch (error) {
      this.#knobs[name] = before;
      if (error instanceof LimitError) throw error;
      this.#refused = !isGone(error);
      throw new LimitError(isGone(error) ? this.#lost(cgroup) : refusal(cgroup, error));
    } finally {
      this.#context.save();
    }
  }

  #startFollowing(): void {
    this.#follow('follow');
    if (this.#trigger !== null || this.#cgroup === null) return;
    try {
      this.#trigger = this.#cgroup.watchPressure((pressure) => {
        if (pressure === null) this.#trigger = null;
        this.check();
      });
    } catch (error) {
      if (this.#pressureUnknown) return;
      this.#pressureUnknown = true;
      const code = codeOf(error);
      this.#context.emit('pressure-unknown', `memory.pressure of the VM cannot be waited for: ${code}`, {
        code,
      });
    }
  }

  #stopFollowing(): void {
    this.#trigger?.close();
    this.#trigger = null;
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
    const cgroup = this.#cgroup;
    if (cgroup === null || this.#closed) return;
    try {
      const read = cgroup.read();
      if (read === null) {
        this.#lost(cgroup);
        return;
      }
      const mayUse = mayUseBytes(use);
      this.#own = ownBytes(read.stat, mayUse);
      const wanted = followLimits(mayUse, this.#own, use.ramBytes);
      const changed: Partial<Record<Name, Limit>> = {};
      for (const name of NAMES) {
        if (this.#knobs[name]?.wanted !== 'follow') continue;
        const next = nextLimit(read[name], wanted[name], read.currentBytes);
        if (next === read[name]) continue;
        cgroup.put({ [name]: next });
        changed[name] = next;
      }
      this.#applied = { highBytes: read.highBytes, maxBytes: read.maxBytes, ...changed };
      this.#failed = null;
      this.#refused = false;
      const details = { mayUseBytes: mayUse, ownBytes: this.#own, currentBytes: read.currentBytes };
      if (Object.keys(changed).length > 0) this.#say(read, changed, why, details);
    } catch (error) {
      this.#fail(error);
    }
  }

  #say(
    from: Partial<Record<Name, Limit>>,
    to: Partial<Record<Name, Limit>>,
    why: string,
    more: Record<string, unknown> = {},
  ): void {
    const fields: Record<string, unknown> = { why };
    const words: string[] = [];
    for (const name of NAMES) {
      if (to[name] === undefined) continue;
      const label = name === 'highBytes' ? 'high' : 'max';
      fields[`${label}FromBytes`] = from[name] ?? null;
      fields[`${label}ToBytes`] = to[name];
      words.push(`memory.${label} ${sizeOf(from[name] ?? null)} -> ${sizeOf(to[name])}`);
    }
    this.#context.emit('limit-set', `${words.join(', ')} (${why})`, { ...fields, ...more });
  }

  /** Said once for each error code until a write succeeds. */
  #fail(error: unknown): void {
    const cgroup = this.#cgroup;
    if (cgroup === null) return;
    if (isGone(error)) {
      this.#lost(cgroup);
      return;
    }
    this.#refused = true;
    const message = refusal(cgroup, error);
    if (this.#failed !== message) this.#context.emit('limit-failed', message, { code: codeOf(error) });
    this.#failed = message;
  }

  #lost(cgroup: VmCgroup): string {
    const message = `the cgroup ${cgroup.path} is gone, and its limits with it: stop moving the VM's processes, then set the limits again`;
    if (this.#touched) this.#context.emit('limit-failed', message, { code: 'ENOENT' });
    this.#stopFollowing();
    for (const name of NAMES) this.#knobs[name] = undefined;
    this.#cgroup = null;
    this.#context.save();
    return message;
  }

  /** `again`: also where none was found before. What is limited stays the same until it is given up. */
  #locate(again = false): VmCgroup | null {
    if (this.#touched || this.#closed) return this.#cgroup;
    if (this.#cgroup !== null && !again) return this.#cgroup;
    if (this.#reason !== null && !again) return null;
    const found = findVmCgroup(this.#context.pid, { shared: this.#context.shared, paths: this.#paths });
    this.#cgroup = found.cgroup;
    if (found.reason !== null && found.reason !== this.#reason) {
      this.#context.emit('cgroup-unknown', `the VM can have no limits: ${found.reason}`);
    }
    this.#reason = found.reason;
    return this.#cgroup;
  }

  #read(cgroup: VmCgroup): CgroupReading | null {
    try {
      return cgroup.read();
    } catch (error) {
      this.#fail(error);
      return null;
    }
  }

  #now(cgroup: VmCgroup): ReturnType<VmCgroup['limits']> {
    try {
      return cgroup.limits();
    } catch {
      return null;
    }
  }
}

/** No memory is worth a VM: without swap, the kernel can only kill to get below what is charged. */
function refuseToKill(max: LimitRequest['max'], { currentBytes }: CgroupReading): void {
  if (typeof max !== 'number' || max >= currentBytes) return;
  throw new LimitError(
    `the VM uses ${formatSize(currentBytes)}, so with a memory.max of ${formatSize(max)} the kernel would kill it: set a balloon first, or use --high`,
  );
}

const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: 'start balloond-limits.socket, or run the daemon as root',
  EPERM: 'start balloond-limits.socket, or run the daemon as root',
  EROFS:
    'the daemon sees cgroups read-only, set ProtectControlGroups=no in its unit or mount them read-write in its container',
};

function refusal(cgroup: VmCgroup, error: unknown): string {
  const code = codeOf(error);
  return `the limits of ${cgroup.path} cannot be written (${code}): ${REMEDIES[code] ?? 'see the kernel log (journalctl -k)'}`;
}

function sizeOf(limit: Limit): string {
  return limit === null ? 'max' : formatSize(limit);
}
