/** The sockets and domains that are to be adopted and cannot be, for `balloonctl doctor`. */
import { STEP_VERBS } from '../../../protocol/control/refusal.js';
import type { AdoptedSocket } from '../../../protocol/control/schema.js';
import { note, type Finding } from './finding.js';

/** A VM that is not started yet is among them, and so nothing here has to be mended. */
export function examineAdopted(all: readonly AdoptedSocket[]): Finding[] {
  return all.flatMap(({ path, vm, problem }) => {
    if (vm !== null || problem === null) return [];
    const [found, step] = inTwo(problem);
    return [note(path, 'adopted', found, step ?? 'run balloonctl adopt --release for it')];
  });
}

/** A sentence, and its next step; null: it has none. */
function inTwo(says: string): [found: string, step: string | null] {
  for (let at = says.indexOf(': '); at >= 0; at = says.indexOf(': ', at + 1)) {
    const step = says.slice(at + 2);
    if (STEP_VERBS.some((verb) => step.startsWith(`${verb} `))) return [says.slice(0, at), step];
  }
  return [says, null];
}
