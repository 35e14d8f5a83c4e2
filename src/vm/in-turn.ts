/**
 * Work of many VMs that is due at the same moment: a few of them begin at each turn of the event loop. Commands of operators and the
 * answers of VMs before are taken in between, so that nobody waits for all VMs, and what is remembered of a VM until it
 * answers is not remembered of all of them at once.
 */
const AT_ONCE = 8;

const waiting: (() => void)[] = [];

/** `work` must not throw. */
export function inTurn(work: () => void): void {
  if (waiting.push(work) === 1) setImmediate(next);
}

function next(): void {
  for (const work of waiting.slice(0, AT_ONCE)) work();
  waiting.splice(0, AT_ONCE);
  if (waiting.length > 0) setImmediate(next);
}
