/** The troubles of a device that were found, as far as they stand: the verdict's memory. */
import { passedOnStep, refusal, type NextStep } from '../../protocol/control/refusal.js';
import { DIAGNOSIS_CODES, type DiagnosisCode } from '../../protocol/control/diagnosis.js';
import type { EventName } from '../../protocol/control/events.js';
import { formatSize } from '../../protocol/control/size.js';
import { PAGE_BYTES, type GuestRegion } from '../memory/region.js';
import { LogError, OutsideError, TransferError } from '../memory/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { SystemError } from '../os/errors.js';
import { MAX_REASON } from '../vhost-user/session-record.js';
import { inTwo, sentence, type Diagnosis } from './diagnosis.js';
import type { VmRecord } from './record.js';

export class Troubles {
  /** It stands until the driver starts anew. */
  #standing: Diagnosis | null = null;
  #memoryLost: Diagnosis | null = null;
  #tooFewQueues: Diagnosis | null = null;
  #memoryRefused: { readonly gpa: bigint | null; readonly diagnosis: Diagnosis } | null = null;
  #discardError: SystemError | null = null;
  #failedRanges = 0;

  /** Goes on with what the daemon before this one wrote down. */
  restore({ problem, diagnosis }: Pick<VmRecord, 'problem' | 'diagnosis'>): void {
    if (problem === null) return;
    this.#standing =
      diagnosis && isCode(diagnosis.code)
        ? { ...diagnosis, code: diagnosis.code, remedy: passedOnStep(diagnosis.remedy) }
        : inTwo('earlier-build', problem);
  }

  record(): Pick<VmRecord, 'problem' | 'diagnosis'> {
    if (this.#standing === null) return { problem: null };
    const { code, text, remedy } = this.#standing;
    const cut = (words: string): string => words.slice(0, MAX_REASON);
    return {
      problem: cut(sentence(this.#standing)),
      diagnosis: { code, text: cut(text), remedy: cut(remedy) },
    };
  }

  /** The gravest of those that stand; null: there is none. */
  gravest(memory: GuestMemory): Diagnosis | null {
    return (
      (memory.lost === null ? null : this.#memoryLost) ??
      this.#standing ??
      this.#memoryRefused?.diagnosis ??
      this.#discards(memory)
    );
  }

  /** A driver starts anew, or there is none any more. */
  forget(): void {
    this.#standing = null;
    this.#memoryRefused = null;
  }

  /** `gpa`: of the region that cannot be had; null: the whole table cannot. */
  memoryRefused(error: Error, gpa: bigint | null): void {
    const diagnosis = inTwo('memory-refused', error.message, 'restart the VM with other memory');
    const text = `the daemon refused memory of the VM, since ${diagnosis.text}`;
    this.#memoryRefused = { gpa, diagnosis: { ...diagnosis, text } };
  }

  /** The region there, or for null all memory, was taken or went. */
  memoryTaken(gpa: bigint | null): void {
    if (gpa === null || this.#memoryRefused?.gpa === gpa) this.#memoryRefused = null;
  }

  /** False: it was known already. */
  privateMemory(said: string): boolean {
    const diagnosis = inTwo('private-memory', said);
    if (this.#standing !== null && sentence(this.#standing) === sentence(diagnosis)) return false;
    this.#standing = diagnosis;
    return true;
  }

  ringStopped(index: number, error: Error): Diagnosis {
    this.#standing = {
      code: 'ring-stopped',
      text: `ring ${index} is stopped, since ${error.message}`,
      remedy:
        error instanceof OutsideError
          ? "give the VM memory-backend-ram,share=on for all of its memory; where it has that, reload the guest's balloon driver"
          : "reload the guest's balloon driver",
    };
    return this.#standing;
  }

  lostMemory(region: GuestRegion): Diagnosis {
    const where = `${formatSize(region.sizeBytes)} of guest memory at 0x${region.gpa.toString(16)}`;
    this.#memoryLost = region.checkFile()
      ? {
          code: 'memory-unavailable',
          text: `${where} cannot be had, its huge pages ran out or the hardware failed, and the balloon is stopped`,
          remedy:
            "look into the host's kernel log, reserve more huge pages (vm.nr_hugepages) and restart the VM",
        }
      : {
          code: 'memory-cut',
          text: `the VMM cut the file with ${where} short, and the balloon is stopped`,
          remedy: "keep everything from truncating the VM's memory file and restart the VM",
        };
    return this.#memoryLost;
  }

  /** `present`: queues of a VMM that has too few of them; null: there are enough, as is then returned. */
  queues(device: string, present: number | null, needed: number): Diagnosis | null {
    if (present === null) {
      // It had not named all of them when it was looked at.
      if (this.#standing === this.#tooFewQueues) this.#standing = null;
      return null;
    }
    this.#tooFewQueues = {
      code: 'too-few-queues',
      text: `the VMM has ${present} virtqueues for the ${device}, the offered features need ${needed}`,
      remedy: `set num_vqs=${needed} on that device and restart the VM`,
    };
    this.#standing = this.#tooFewQueues;
    return this.#standing;
  }

  discarded(): void {
    this.#discardError = null;
  }

  /** False: an error of this code is known already. */
  discardsFailed(error: SystemError, ranges: number): boolean {
    const known = this.#discardError?.code === error.code;
    this.#failedRanges += ranges;
    this.#discardError = error;
    return !known;
  }

  #discards(memory: GuestMemory): Diagnosis | null {
    if (this.#discardError === null) return null;
    const { pendingPages } = memory;
    // A driver that need not tell may use what it gave up, and nothing is owed.
    const owed = `; ${formatSize(pendingPages * PAGE_BYTES)} given up by the guest is still in use`;
    const stays = pendingPages === 0 ? '' : owed;
    return {
      code: 'discards-failed',
      text: `${this.#failedRanges} discards failed, the last with ${this.#discardError.message}${stays}`,
      remedy: 'see discard-failed in balloond(8)',
    };
  }
}

/** Errors of system calls that say nothing of the request: the daemon or the host lacks something. The next step for each. */
const LACKS: ReadonlyMap<string, NextStep> = new Map([
  [
    'EMFILE',
    'let the daemon have more files open (LimitNOFILE= in its unit, or ulimit -n), then restart the VM',
  ],
  ['ENFILE', 'raise fs.file-max of the host, then restart the VM'],
  ['ENOMEM', 'give the host memory, or raise vm.max_map_count, then restart the VM'],
]);

/** The words of an error, and the next step where the daemon or the host lacks something. */
export function errorWords(error: Error): string {
  const step = error instanceof SystemError ? LACKS.get(error.code) : undefined;
  return step === undefined ? error.message : refusal(error.message, step);
}

/** The event that tells of a request of the VMM that was refused: one for each thing to do about it. */
export function refusalEvent(error: Error): EventName {
  if (error instanceof TransferError) return 'state-failed';
  if (error instanceof LogError) return 'log-too-short';
  return error instanceof SystemError && LACKS.has(error.code) ? 'request-failed' : 'frontend-error';
}

function isCode(code: string): code is DiagnosisCode {
  return (DIAGNOSIS_CODES as readonly string[]).includes(code);
}
