/** `balloonctl events`: one line an event. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { EventLevel } from '../../../protocol/control/events.js';
import type { DaemonEvent } from '../../../protocol/control/schema.js';
import { UnreachableError, type ControlClient, type EventsWanted } from '../client.js';
import { UsageError } from './exit.js';
import { printable, type Output, type Style } from './output.js';

const STYLES: Record<EventLevel, Style | null> = { debug: 'dim', info: null, warn: 'yellow', error: 'red' };

/** How often to look for a daemon that is away, and when to say that it is. */
const RETRY_MS = 100;
const RETRY_MS_MAX = 2000;
const SAY_AFTER_MS = 3000;

const UNITS_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/**
 * What `--since` means to the daemon: `30m` and a time without a distance from UTC are those of this machine. Throws
 * UsageError.
 */
export function sinceOf(text: string, now: Date): string {
  if (/^[0-9a-f]{8}-\d{1,15}$/.test(text)) return text;
  const [, count, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const timeMs =
    count !== undefined
      ? now.getTime() - Number(count) * (UNITS_MS[unit] ?? 0)
      : /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(text)
        ? Date.parse(text.replace(' ', 'T'))
        : NaN;
  if (Number.isNaN(timeMs) || timeMs < 0) {
    throw new UsageError(
      '--since: write a duration such as 30m, 2h or 1d, a time such as 2026-11-27T10:00, or the id of an event',
    );
  }
  return new Date(timeMs).toISOString();
}

/** Prints what is remembered; with `follow`, goes on with what comes, also over restarts of the daemon. */
export async function events(
  client: ControlClient,
  output: Output,
  wanted: EventsWanted,
  say: (line: string) => void,
): Promise<void> {
  const reader = new Reader(client, output, wanted, say);
  const { vm, follow } = wanted;
  if (vm !== undefined && follow) {
    await client.show(vm).catch((error: unknown) => {
      if (!(error instanceof Error && 'status' in error && error.status === 404)) throw error;
      say(`note: ${printable(error.message)}; events are followed until there is one`);
    });
  }
  try {
    await reader.read();
  } catch (error) {
    // Whoever begins to follow while a daemon is started again waits for it, as others do.
    if (!follow || !(error instanceof UnreachableError && error.mayComeBack)) throw error;
    await reader.comeBack();
  }
  // Nothing happened to it, or there is no such VM: the daemon says which there are.
  if (vm !== undefined && !follow && reader.printed === 0) await client.show(vm);
  while (wanted.follow) await reader.comeBack();
}

/** Reads the stream and knows where it stands. */
class Reader {
  printed = 0;
  readonly #client: ControlClient;
  readonly #output: Output;
  readonly #say: (line: string) => void;
  #wanted: EventsWanted;

  constructor(client: ControlClient, output: Output, wanted: EventsWanted, say: (line: string) => void) {
    this.#client = client;
    this.#output = output;
    this.#wanted = wanted;
    this.#say = say;
  }

  /** Until the stream ends. Throws what the client throws only when nothing was read. */
  async read(connected: () => void = () => undefined): Promise<void> {
    let begun = false;
    try {
      for await (const { id, event, notice } of this.#client.stream(this.#wanted)) {
        if (!begun) connected();
        begun = true;
        if (notice !== null) this.#say(`note: ${printable(notice)}`);
        if (event !== null) this.#print(event);
        if (id !== null) this.#wanted = { ...this.#wanted, since: id };
      }
    } catch (error) {
      if (!begun || !this.#wanted.follow) throw error;
    }
  }

  /** The stream ended. Goes on with the next one, and says in one line that the daemon was away. */
  async comeBack(): Promise<void> {
    const since = performance.now();
    let said = false;
    for (let waitMs = RETRY_MS; ; waitMs = Math.min(2 * waitMs, RETRY_MS_MAX)) {
      try {
        await this.read(() => {
          const seconds = ((performance.now() - since) / 1000).toFixed(1);
          if (!said) this.#say(`the daemon was away for ${seconds} s: events go on`);
          said = true;
        });
        return;
      } catch (error) {
        if (!passes(error)) throw error;
        if (!said && performance.now() - since > SAY_AFTER_MS) {
          said = true;
          this.#say(`waiting for the daemon: ${(error as Error).message}`);
        }
      }
      await sleep(waitMs);
    }
  }

  #print(event: DaemonEvent): void {
    this.printed++;
    if (this.#output.json) this.#output.document(event);
    else this.#output.print(renderEvent(event, this.#output));
  }
}

/** Whether waiting can help: nobody listens yet, or there is no place for a stream. */
function passes(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return error.name === 'UnreachableError' || ('status' in error && error.status === 503);
}

function renderEvent({ time, level, vm, event, message }: DaemonEvent, output: Output): string {
  const style = STYLES[level];
  const word = level.padEnd(5);
  const painted = style === null ? word : output.paint(style, word);
  // Milliseconds only cost width.
  const seconds = time.replace(/\.\d+Z$/, 'Z');
  const who = vm === undefined ? '' : `${output.paint('bold', printable(vm))}: `;
  return `${seconds} ${painted} ${event} ${who}${printable(message)}`;
}
