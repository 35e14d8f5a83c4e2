import { Rogue, type RogueKind } from '../test/support/rogue.js';
import { play } from './player.js';

/** VMs that misbehave, in a process of their own. */
export type RoguesPart = {
  begin: { ask: { socketPath: string; kinds: readonly RogueKind[] }; answer: null };
  /** How often each did its thing. */
  count: { ask: null; answer: Record<string, number> };
};

const rogues = new Map<RogueKind, Rogue>();

play<RoguesPart>({
  begin: ({ socketPath, kinds }) => {
    for (const kind of kinds) rogues.set(kind, new Rogue(kind, socketPath));
    return null;
  },
  count: () => Object.fromEntries([...rogues].map(([kind, { steps }]) => [kind, steps])),
});
