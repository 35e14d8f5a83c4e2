/**
 * The cgroup of a VM: found once, read in one place, and watched by one PSI trigger, for its limits, the policy and
 * metrics. Cgroups belong to root, and the daemon is not root: a helper that systemd starts (balloond-limits.socket) makes
 * the limits and the pressure file of a cgroup writable for the daemon's group, and can do nothing else.
 */
import { accessSync, constants } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { LIMIT_NAMES, LIMITS } from '../../protocol/control/limits.js';
import { Cgroup, type CgroupUsage } from '../host/cgroup.js';
import { findVmCgroup } from '../host/find-cgroup.js';
import { codeOf, type HostPaths } from '../host/host-paths.js';
import type { Pressure, PressureTrigger } from '../host/pressure.js';
import type { Emit } from '../ops/event-log.js';

/** systemd starts a shell for the helper. */
const HELPER_MS = 8000;

interface VmCgroupOptions {
  readonly pid: number;
  readonly paths: HostPaths;
  readonly emit: Emit;
}

export class VmCgroup {
  /** Whether a cgroup that holds other processes as well will do. */
  shared = false;
  readonly #options: VmCgroupOptions;
  #cgroup: Cgroup | null = null;
  #reason: string | null = null;
  /** Its limits were changed, so it stays the VM's until they are given up. */
  #held = false;
  readonly #listeners = new Set<() => void>();
  #trigger: PressureTrigger | null = null;
  #closed = false;

  constructor(options: VmCgroupOptions) {
    this.#options = options;
  }

  /** Why the VM has no cgroup, as far as somebody looked for it; null: it has one. */
  get reason(): string | null {
    return this.#reason;
  }

  /** The cgroup; null: the VM has none. `again`: it is looked for also where none was found before. */
  find(again = false): Cgroup | null {
    if (this.#held || this.#closed) return this.#cgroup;
    if (this.#cgroup !== null && !again) return this.#cgroup;
    if (this.#reason !== null && !again) return null;
    const { pid, paths, emit } = this.#options;
    const { cgroup, reason } = findVmCgroup(pid, { shared: this.shared, paths });
    if (cgroup?.path !== this.#cgroup?.path) {
      this.#endWatch();
      this.#cgroup = cgroup;
    }
    if (reason !== null && reason !== this.#reason) {
      emit('cgroup-unknown', `the VM can have no limits: ${reason}`);
    }
    this.#reason = reason;
    return this.#cgroup;
  }

  /** The cgroup stays that at `path`, or the present one, until release(). */
  hold(path?: string): void {
    if (path !== undefined) this.#cgroup = new Cgroup(path, this.#options.paths.cgroup);
    this.#held = true;
  }

  release(): void {
    this.#held = false;
  }

  /** The cgroup is no more: it is looked for again when it is needed. */
  lost(): void {
    this.#held = false;
    this.#endWatch();
    this.#cgroup = null;
    this.#reason = null;
  }

  /** The memory that is used, for what, and who waits for it; null where that cannot be read. */
  usage(): CgroupUsage | null {
    this.#watch();
    try {
      return this.find()?.usage() ?? null;
    } catch {
      return null;
    }
  }

  /** Null: PSI is switched off, or there is no cgroup. */
  pressure(): Pressure | null {
    return this.find()?.pressure() ?? null;
  }

  /** Whether its limits may be written. */
  get writable(): boolean {
    const cgroup = this.#cgroup;
    if (cgroup === null) return false;
    try {
      for (const name of LIMIT_NAMES) accessSync(join(cgroup.folder, LIMITS[name].file), constants.W_OK);
      return true;
    } catch {
      return false;
    }
  }

  /** Asks the helper for access, if there is one. Whether it helped is found out by writing. */
  openAccess({ path }: Cgroup): Promise<void> {
    return new Promise((resolve) => {
      const helper = connect({ path: this.#options.paths.limitsHelper });
      helper.setTimeout(HELPER_MS, () => helper.destroy());
      helper.on('error', () => undefined);
      helper.on('close', () => resolve());
      helper.resume();
      helper.end(`${path}\n`);
    });
  }

  /**
   * Calls back when the VM's tasks wait for memory, until unwatch(). Returns the errno name where that cannot be waited for
   * yet; it is tried again whenever the cgroup is read.
   */
  watch(listener: () => void): string | null {
    this.#listeners.add(listener);
    return this.#watch();
  }

  unwatch(listener: () => void): void {
    this.#listeners.delete(listener);
    if (this.#listeners.size === 0) this.#endWatch();
  }

  close(): void {
    this.#closed = true;
    this.#listeners.clear();
    this.#endWatch();
  }

  #watch(): string | null {
    if (this.#trigger !== null || this.#closed || this.#listeners.size === 0) return null;
    try {
      const trigger = this.find()?.watchPressure((pressure) => {
        if (pressure === null) this.#trigger = null;
        for (const listener of [...this.#listeners]) listener();
      });
      this.#trigger = trigger ?? null;
      return null;
    } catch (error) {
      return codeOf(error);
    }
  }

  #endWatch(): void {
    this.#trigger?.close();
    this.#trigger = null;
  }
}
