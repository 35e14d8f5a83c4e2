/** `balloonctl top`: all VMs with what they lately had, again every second; once where nobody watches. */
import { setTimeout as sleep } from 'node:timers/promises';
import { stdout } from '../../os/print.js';
import { UnreachableError, type ControlClient } from '../client.js';
import type { Output } from './output.js';
import { Terminal } from './terminal.js';
import { TopModel } from './top-model.js';
import { renderTop, Samples, type Seen, type SortKey } from './top-view.js';

const INTERVAL_MS = 1000;
const COLUMNS = 80;

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
  if (output.json) output.document(seen.vms);
  else if (once || output.columns === null || !process.stdin.isTTY) {
    const samples = new Samples();
    samples.add(seen.vms);
    output.print(renderTop(seen, samples, sort, output.columns ?? COLUMNS, output).join('\n'));
  } else await watch(new TopModel(seen, sort), look, output);
}

async function watch(model: TopModel, look: () => Promise<Seen>, output: Output): Promise<void> {
  const ended = new AbortController();
  const end = (): void => ended.abort();
  const isEnded = (): boolean => ended.signal.aborted;
  const failures: unknown[] = [];
  /** What fails while a key is handled is told when the terminal is back. */
  const guarded =
    <Arguments extends unknown[]>(handle: (...args: Arguments) => void) =>
    (...args: Arguments): void => {
      try {
        handle(...args);
      } catch (error) {
        failures.push(error);
        end();
      }
    };
  const draw = (): void => {
    const { columns, rows } = terminal;
    terminal.draw(model.frame({ columns, rows }, output));
  };
  const terminal = new Terminal(
    { input: process.stdin, output: stdout },
    {
      onKey: guarded((key) => {
        const wish = model.press(key);
        if (wish === 'quit') end();
        else if (wish === 'suspend') terminal.suspend();
        else draw();
      }),
      onResize: guarded(draw),
      onEnd: end,
    },
  );
  terminal.open();
  try {
    while (!isEnded()) {
      draw();
      await sleep(INTERVAL_MS, null, { signal: ended.signal }).catch(() => null);
      try {
        if (!isEnded()) model.see(await look());
      } catch (error) {
        if (!(error instanceof UnreachableError)) throw error;
        model.problem = `trying again (q quits): ${error.message}`;
      }
    }
  } finally {
    terminal.close();
  }
  if (failures.length > 0) throw failures[0];
}
