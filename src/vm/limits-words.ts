/** What is said of limits that do not hold, as diagnoses. */
import type { NextStep } from '../../protocol/control/refusal.js';
import { formatSize } from '../../protocol/control/size.js';
import type { DiagnosisCode } from '../../protocol/control/diagnosis.js';
import { RefusedError } from '../control/fleet.js';
import type { CgroupReading, Limit } from '../host/cgroup.js';
import { codeOf } from '../host/host-paths.js';
import { inTwo, sentence, type Diagnosis } from './diagnosis.js';

/** A limit that cannot be: the message says why and what to do. */
export class LimitError extends RefusedError {
  override readonly name = 'LimitError';
  readonly diagnosis: Diagnosis;

  constructor(diagnosis: Diagnosis) {
    super(sentence(diagnosis));
    this.diagnosis = diagnosis;
  }
}

const DENIED = ['limits-denied', 'start balloond-limits.socket, or run the daemon as root'] as const;
const REFUSALS: Readonly<Record<string, readonly [DiagnosisCode, NextStep]>> = {
  EACCES: DENIED,
  EPERM: DENIED,
  EROFS: [
    'limits-read-only',
    'the daemon sees cgroups read-only, set ProtectControlGroups=no in its unit or mount them read-write in its container',
  ],
};

/** The kernel refused to write the limits of the cgroup at `path`. */
export function refused(path: string, error: unknown): Diagnosis {
  const errno = codeOf(error);
  const [code, remedy] = REFUSALS[errno] ?? ['limits-refused', 'see the kernel log (journalctl -k)'];
  return { code, text: `the limits of ${path} cannot be written (${errno})`, remedy };
}

export function gone(path: string): Diagnosis {
  return {
    code: 'cgroup-gone',
    text: `the cgroup ${path} is gone, and its limits with it`,
    remedy: "stop moving the VM's processes, then set the limits again",
  };
}

/** `reason`: of the search for the cgroup. */
export function noCgroup(reason: string | null): Diagnosis {
  return inTwo('no-cgroup', reason ?? 'the VM has no cgroup', 'see LIMITS in balloond(8)');
}

/** No memory is worth a VM: without swap, the kernel can only kill to get below what is charged. Throws LimitError. */
export function refuseToKill(max: unknown, { currentBytes }: CgroupReading): void {
  if (typeof max !== 'number' || max >= currentBytes) return;
  throw new LimitError({
    code: 'limit-too-low',
    text: `the VM uses ${formatSize(currentBytes)}, so with a memory.max of ${formatSize(max)} the kernel would kill it`,
    remedy: 'set a balloon first, or use --high',
  });
}

/** A fixed memory.max is below what the guest may use; null: it is not. */
export function tooLow(max: unknown, mayUse: number): Diagnosis | null {
  if (typeof max !== 'number' || max >= mayUse) return null;
  return {
    code: 'limit-too-low',
    text: `memory.max is ${formatSize(max)} and the guest may use ${formatSize(mayUse)}, so the kernel kills the VM when the guest does`,
    remedy: 'raise the limit, let the limit follow, or set a larger balloon',
  };
}

export function sizeOf(limit: Limit): string {
  return limit === null ? 'max' : formatSize(limit);
}
