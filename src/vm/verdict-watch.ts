import type { DiagnosisCode } from '../../protocol/control/diagnosis.js';
import type { EventName } from '../../protocol/control/events.js';
import type { Emit } from '../ops/event-log.js';
import { sentence, type Diagnosis } from './diagnosis.js';

/** The event that says as it happens what a verdict says; null: the verdict comes with time alone. A new code has to choose. */
const TOLD_BY: Readonly<Record<DiagnosisCode, EventName | null>> = {
  'no-driver': null,
  'rings-silent': null,
  'private-memory': 'private-memory',
  'too-few-queues': 'too-few-queues',
  'memory-refused': 'frontend-error',
  'memory-not-discardable': null,
  'memory-pinned': 'inhibited',
  throttled: 'vm-throttled',
  stopped: 'vm-stopped',
  'target-not-answered': null,
  'actual-not-written': null,
  'not-deflating': null,
  'target-too-large': null,
  'inflate-stopped': null,
  'out-of-puff': null,
  'took-back': null,
  'moved-by-other': null,
  'queues-missing': null,
  'no-statistics': null,
  'pages-refilled': 'pages-refilled',
  'pages-pinned': 'pages-pinned',
  'pages-used': 'pages-used',
  'ring-stopped': 'driver-error',
  'discards-failed': 'discard-failed',
  'memory-cut': 'memory-lost',
  'memory-unavailable': 'memory-lost',
  'huge-pages-short': 'huge-pages-short',
  'huge-pages-kept': 'huge-pages-kept',
  'limit-too-low': 'limit-set',
  'limits-denied': 'limit-failed',
  'limits-read-only': 'limit-failed',
  'limits-refused': 'limit-failed',
  'cgroup-gone': 'limit-failed',
  'no-cgroup': 'cgroup-unknown',
  'qmp-unanswered': 'qmp-failed',
  'qmp-refused': 'qmp-failed',
  'libvirt-away': 'libvirt-failed',
  'earlier-build': 'vm-resumed',
};

/** A verdict takes longer to find than all else that is looked at every few seconds, and is wanted less soon. */
const LOOKS_A_VERDICT = 8;

/** Tells of the verdicts of one VM as they come and go, for those who read its events. */
export class VerdictWatch {
  readonly #emit: Emit;
  #told: DiagnosisCode | null = null;
  #looks = 0;

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  /** To be called every few seconds; `read` says the verdict as it is, and is called each eighth time. */
  look(read: () => Diagnosis | null): void {
    if (++this.#looks % LOOKS_A_VERDICT !== 0) return;
    const diagnosis = read();
    // Another event tells of that one, and does not say that the last verdict is over.
    if (diagnosis !== null && TOLD_BY[diagnosis.code] !== null) return;
    const code = diagnosis?.code ?? null;
    if (code === this.#told) return;
    this.#told = code;
    if (diagnosis !== null) this.#emit('verdict', sentence(diagnosis), { code });
    else this.#emit('verdict-over', 'what the last verdict found wrong is over', {});
  }
}
