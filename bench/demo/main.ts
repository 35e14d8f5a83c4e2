/** `npm run demo`: runs the story once, ends what it began however that goes, and sets the exit code. */
import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import { tellCacheBalloon } from './cache-balloon.js';
import { failing } from './outcome.js';
import { Stage } from './stage.js';
import { tell } from './story.js';
import { svg } from './svg.js';
import { Terminal } from './terminal.js';

const USAGE = 'usage: npm run demo [-- [--cache-balloon] [--svg FILE]]';
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

class Interrupted extends Error {
  constructor(readonly signal: (typeof SIGNALS)[number]) {
    super(`ended by ${signal}`);
  }
}

function options(): { svg?: string; 'cache-balloon'?: boolean } {
  try {
    return parseArgs({ options: { svg: { type: 'string' }, 'cache-balloon': { type: 'boolean' } } }).values;
  } catch (error) {
    process.stderr.write(`demo: ${(error as Error).message} (${USAGE})\n`);
    process.exit(2);
  }
}

/** Rejects on a signal and on an error nobody waited for, such as a reader of stdout that went away. */
const interrupted = new Promise<never>((_, reject) => {
  for (const signal of SIGNALS) process.on(signal, () => reject(new Interrupted(signal)));
  process.on('uncaughtException', reject);
});

async function run(stage: Stage, svgPath: string | undefined): Promise<void> {
  const { recording, outcome } = await tell(stage, new Terminal(process.stdout, process.env));
  if (svgPath !== undefined) writeFileSync(svgPath, svg(recording));
  const failure = failing(outcome);
  if (failure !== null) throw new Error(failure);
}

const { svg: svgPath, 'cache-balloon': isCacheBalloon } = options();
const stage = new Stage();
let exitCode = 0;
try {
  const told =
    isCacheBalloon === true
      ? tellCacheBalloon(new Terminal(process.stdout, process.env), svgPath)
      : run(stage, svgPath);
  await Promise.race([told, interrupted]);
} catch (error) {
  exitCode = error instanceof Interrupted ? 128 + constants.signals[error.signal] : 1;
  process.stderr.write(`\ndemo: ${error instanceof Error ? error.message : String(error)}\n`);
}
await stage.clear();
// Whatever of an interrupted story still waits for something has nothing left to wait for.
process.exit(exitCode);
