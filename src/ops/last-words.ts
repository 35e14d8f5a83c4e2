import type { LineWriter } from '../os/line-writer.js';
import type { Emit } from './event-log.js';

/**
 * Has what a long-lived process says go through its log, and nothing past it: Node.js itself prints warnings and the stack
 * of an error that nobody caught to stderr, and waits there for a reader that stalls. At the end of the process, lines
 * that wait are given a moment. Lines that were dropped are told of.
 */
export function ownLastWords(stderr: LineWriter, emit: Emit): void {
  stderr.onDropped = (lines) =>
    emit('log-dropped', `${lines} lines of the log were dropped, because stderr took none for a while`, {
      lines,
    });
  process.on('exit', () => stderr.flush());
  process.on('uncaughtException', (error: unknown) => {
    const [message, fault] =
      error instanceof Error ? [error.message, error.stack] : [String(error), undefined];
    try {
      emit('daemon-failed', `a fault of its own ends this process: ${message}`, { fault });
    } finally {
      process.exit(1);
    }
  });
  process.removeAllListeners('warning');
  process.on('warning', ({ name, message }) =>
    emit('runtime-warning', `Node.js warns: ${message}`, { name }),
  );
}
