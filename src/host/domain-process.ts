/** The process of a libvirt domain, by the command line that libvirt gave it. */
import { promises as fs } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, type HostPaths } from './host-paths.js';
import { qemuOptions } from './qemu-options.js';

/** One look at all processes serves the domains that are asked for within that time before it. */
const TOGETHER_MS = 200;

export class DomainProcesses {
  readonly #paths: Pick<HostPaths, 'proc' | 'libvirt'>;
  /** The next look, which has not begun: a domain that was started again has another process than at the last one. */
  #next: Promise<ReadonlyMap<string, readonly number[]>> | null = null;

  constructor(paths: Pick<HostPaths, 'proc' | 'libvirt'>) {
    this.#paths = paths;
  }

  /**
   * The process of the domain; null: there is none, or several say that they are it and libvirt's own file does not say which.
   */
  async of({ uuid, name }: { readonly uuid: string; readonly name: string }): Promise<number | null> {
    this.#next ??= sleep(TOGETHER_MS).then(() => {
      this.#next = null;
      return this.#look();
    });
    const pids = (await this.#next).get(uuid) ?? [];
    // Any user may start a process with any command line.
    if (pids.length > 1) return await this.#written(name, pids);
    return pids[0] ?? null;
  }

  async #written(name: string, among: readonly number[]): Promise<number | null> {
    const text = name.includes('/') ? '' : await read(join(this.#paths.libvirt, `${name}.pid`));
    const pid = Number(text.trim());
    return among.includes(pid) ? pid : null;
  }

  /** All processes that have a UUID on their command line as QEMU has it. */
  async #look(): Promise<ReadonlyMap<string, readonly number[]>> {
    const found = new Map<string, number[]>();
    const { proc } = this.#paths;
    const pids = (await fs.readdir(proc).catch(() => [])).filter((name) => /^\d+$/.test(name));
    for (const pid of pids) {
      const commandLine = await read(join(proc, pid, 'cmdline'));
      if (!commandLine.includes('-uuid\0')) continue;
      const uuid = qemuOptions(commandLine, 'uuid', 'uuid')[0]?.['uuid'];
      if (uuid !== undefined) found.set(uuid, [...(found.get(uuid) ?? []), Number(pid)]);
    }
    return found;
  }
}

/** Empty where the file is not there, or may not be read. */
async function read(path: string): Promise<string> {
  try {
    return await fs.readFile(path, 'latin1');
  } catch (error) {
    if (error instanceof Error && codeOf(error) !== 'undefined') return '';
    throw error;
  }
}
