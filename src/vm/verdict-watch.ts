import type { DiagnosisCode } from '../../protocol/control/diagnosis.js';
import type { Emit } from '../ops/event-log.js';
import { sentence, type Diagnosis } from './diagnosis.js';

/** Verdicts that come with time alone. Any other has an event of its own, which says the same as it happens. */
const BY_TIME: ReadonlySet<DiagnosisCode> = new Set<DiagnosisCode>([
  'no-driver',
  'rings-silent',
  'memory-not-discardable',
  'target-not-answered',
  'actual-not-written',
  'not-deflating',
  'target-too-large',
  'inflate-stopped',
  'out-of-puff',
  'took-back',
  'no-statistics',
]);

/** Tells of the verdicts of one VM as they come and go, for those who read its events. */
export class VerdictWatch {
  readonly #emit: Emit;
  #told: DiagnosisCode | null = null;

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  /** To be called now and then with the verdict as it is. */
  look(diagnosis: Diagnosis | null): void {
    const code = diagnosis !== null && BY_TIME.has(diagnosis.code) ? diagnosis.code : null;
    if (code === this.#told) return;
    this.#told = code;
    if (diagnosis !== null && code !== null) this.#emit('verdict', sentence(diagnosis), { code });
    else this.#emit('verdict-over', 'what the last verdict found wrong is over', {});
  }
}
