/** `balloonctl events`: one line an event. */
import type { DaemonEvent, EventLevel } from '../../../protocol/control/events.js';
import { UnreachableError, type ControlClient } from '../client.js';
import { printable, type Output, type Style } from './output.js';

const STYLES: Record<EventLevel, Style | null> = { debug: 'dim', info: null, warn: 'yellow', error: 'red' };

/** Follows until the daemon ends the stream, which it does only when it stops or this reader is too slow. */
export async function events(client: ControlClient, output: Output, follow: boolean): Promise<void> {
  for await (const event of client.events(follow)) {
    if (output.json) output.document(event);
    else output.print(renderEvent(event, output));
  }
  if (follow) throw new UnreachableError('the daemon ended the stream because it stops: follow again later');
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
