/** `balloonctl top`: all VMs with what they lately had, again every second; once where nobody watches. */
import { setTimeout as sleep } from 'node:timers/promises';
import { stdout } from '../../os/print.js';
import { UnreachableError, type ControlClient } from '../client.js';
import { SORT_KEYS } from './choices.js';
import type { Output } from './output.js';
import { renderTop, Samples, type SortKey } from './top-view.js';
import { shorten } from './text.js';

const INTERVAL_MS = 1000;
const COLUMNS = 80;
const ROWS = 24;
const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const END_KEYS = ['q', '\x03', '\x1b'];

type Seen = Parameters<typeof renderTop>[0];

/** On a terminal until q is pressed; a daemon that restarts meanwhile is waited for. */
export async function top(
  client: ControlClient,
  output: Output,
  sort: SortKey,
  once: boolean,
): Promise<void> {
  const look = async (): Promise<Seen> => {
    const [vms, policy] = await Promise.all([client.list(), client.policy()]);
    return { vms, policy };
  };
  const seen = await look();
  const samples = new Samples();
  samples.add(seen.vms);
  if (output.json) output.document(seen.vms);
  else if (once || output.columns === null || !process.stdin.isTTY) {
    const screen = { columns: output.columns ?? COLUMNS, rows: Infinity };
    output.print(renderTop(seen, samples, sort, screen, output).join('\n'));
  } else await watch(seen, look, samples, sort, output);
}

async function watch(
  first: Seen,
  look: () => Promise<Seen>,
  samples: Samples,
  sort: SortKey,
  output: Output,
): Promise<void> {
  const { stdin } = process;
  const ended = new AbortController();
  let [seen, by, problem]: [Seen, SortKey, string | null] = [first, sort, null];
  const draw = (): void => {
    const { columns = COLUMNS, rows = ROWS } = stdout;
    const lines = renderTop(seen, samples, by, { columns, rows: rows - 1 }, output);
    const keys = `by ${by}; sort by: n name, m memory, b balloon, a available; q quit`;
    const last = output.paint(problem === null ? 'dim' : 'red', shorten(problem ?? keys, columns));
    stdout.write(`\x1b[H${[...lines, last].map((line) => `${line}\x1b[K`).join('\n')}\x1b[J`);
  };
  const end = (): void => ended.abort();
  const press = (typed: Buffer): void => {
    const key = typed.toString();
    if (END_KEYS.includes(key)) return end();
    by = SORT_KEYS.find((word) => word.startsWith(key)) ?? by;
    draw();
  };
  stdin.setRawMode(true);
  stdin.on('data', press);
  stdout.on('resize', draw);
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.once(signal, end);
  stdout.write(ENTER);
  try {
    while (!ended.signal.aborted) {
      draw();
      await sleep(INTERVAL_MS, null, { signal: ended.signal }).catch(() => null);
      try {
        seen = await look();
        samples.add(seen.vms);
        problem = null;
      } catch (error) {
        if (!(error instanceof UnreachableError)) throw error;
        problem = `trying again (q quits): ${error.message}`;
      }
    }
  } finally {
    stdout.write(LEAVE);
    stdin.setRawMode(false);
    stdin.off('data', press);
    stdin.pause();
  }
}
