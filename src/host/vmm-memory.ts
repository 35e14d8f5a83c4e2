/** How VMMs map the memory that they share with the daemon, as the kernel tells root. */
import { closeSync, openSync } from 'node:fs';
import { describeFile, type BackingFile } from '../os/file.js';
import { readKernelFile } from '../os/kernel-file.js';
import { mappingsOf } from './mappings.js';

const HUGE_PAGE_BYTES = '/sys/kernel/mm/transparent_hugepage/hpage_pmd_size';

type MemoryFile = Pick<BackingFile, 'kind' | 'pageBytes' | 'shmemHugePages'>;

/** A part of guest memory in the address space of its VMM. */
export interface MemoryMapping {
  /** The kernel's word for the file, which the VMM may have chosen. */
  readonly path: string;
  readonly lenBytes: number;
  /** The distance, in bytes, from where the file's huge pages would begin: only at 0 can the kernel map them. */
  readonly offBytes: number;
  readonly file: MemoryFile;
}

export interface VmmMemory {
  /** The process may have transparent huge pages, unless it switched them off (PR_SET_THP_DISABLE). */
  readonly mayHaveHugePages: boolean;
  /** Bytes of one that the kernel maps. */
  readonly hugePageBytes: number;
  readonly mappings: readonly MemoryMapping[];
}

/** Looks at the memory that VMMs share with one daemon. It reads the daemon's mappings once. */
export class SharedMemory {
  readonly #daemonPid: number;
  /** By the file: where the daemon maps it, as a name in its map_files. */
  readonly #mapped = new Map<string, string>();

  /** A process that is gone or may not be looked at shares nothing. */
  constructor(daemonPid: number) {
    this.#daemonPid = daemonPid;
    try {
      for (const { file, shared, start, end } of mappingsOf(daemonPid)) {
        if (file === null || !shared) continue;
        this.#mapped.set(file, `${start.toString(16)}-${end.toString(16)}`);
      }
    } catch {
      this.#mapped.clear();
    }
  }

  /** Null: it cannot be told. Mappings that are smaller than a huge page are left out. */
  of(vmmPid: number): VmmMemory | null {
    try {
      const hugePageBytes = Number(readKernelFile(HUGE_PAGE_BYTES));
      const mappings = [...this.#sharedBy(vmmPid, hugePageBytes)];
      if (mappings.length === 0) return null;
      return {
        mayHaveHugePages: !/^THP_enabled:\s*0$/m.test(readKernelFile(`/proc/${vmmPid}/status`)),
        hugePageBytes,
        mappings,
      };
    } catch {
      return null;
    }
  }

  *#sharedBy(vmmPid: number, hugePageBytes: number): Generator<MemoryMapping> {
    for (const { file, shared, start, end, offset, path } of mappingsOf(vmmPid)) {
      const place = file === null || !shared ? undefined : this.#mapped.get(file);
      if (place === undefined || end - start < hugePageBytes) continue;
      const off = Number(BigInt.asUintN(64, start - offset) % BigInt(hugePageBytes));
      yield {
        path,
        lenBytes: Number(end - start),
        offBytes: Math.min(off, hugePageBytes - off),
        file: this.#describe(place),
      };
    }
  }

  /** By the daemon's own mapping: the daemon maps nothing that a VMM serves itself. */
  #describe(place: string): MemoryFile {
    const fd = openSync(`/proc/${this.#daemonPid}/map_files/${place}`, 'r');
    try {
      const { kind, pageBytes, shmemHugePages } = describeFile(fd);
      return { kind, pageBytes, shmemHugePages };
    } finally {
      closeSync(fd);
    }
  }
}
