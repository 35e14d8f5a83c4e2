/** One event as one line for people. */
import type { DaemonEvent, EventLevel } from '../../../protocol/control/events.js';
import { printable, type Output, type Style } from './output.js';

const STYLES: Record<EventLevel, Style | null> = { debug: 'dim', info: null, warn: 'yellow', error: 'red' };

export function renderEvent({ time, level, vm, event, message }: DaemonEvent, output: Output): string {
  const style = STYLES[level];
  const word = level.padEnd(5);
  const painted = style === null ? word : output.paint(style, word);
  // Milliseconds only cost width.
  const seconds = time.replace(/\.\d+Z$/, 'Z');
  const who = vm === undefined ? '' : `${output.paint('bold', printable(vm))}: `;
  return `${seconds} ${painted} ${event} ${who}${printable(message)}`;
}
