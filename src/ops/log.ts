import { fstatSync } from 'node:fs';
import { pino, type Logger } from 'pino';
import { isJournalStream } from '../../protocol/journal.js';
import type { LineWriter } from '../os/line-writer.js';
import { stderrIsTerminal } from '../os/print.js';
import { JournalLog } from './journal-log.js';
import type { LogLevel } from '../../protocol/control/log-levels.js';
import type { LevelledLog } from './levelled-log.js';
import { prettyLine } from './pretty-line.js';

const STDERR = 2;

export const LOG_FORMATS = ['json', 'pretty', 'journal'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What suits stderr. */
export function defaultFormat(environment = process.env): LogFormat {
  if (isJournalStream(environment['JOURNAL_STREAM'], fstatSync(STDERR, { bigint: true }))) return 'journal';
  return stderrIsTerminal() ? 'pretty' : 'json';
}

/**
 * One line an event on `stderr`, or one entry of the journal; stdout stays free for what was asked for. Nothing that
 * becomes of either keeps the caller waiting, or ends it.
 */
export function createLogger(level: LogLevel, format: LogFormat, stderr: LineWriter): LevelledLog {
  return format === 'journal'
    ? new JournalLog(level, lines(level, 'json', stderr))
    : lines(level, format, stderr);
}

function lines(level: LogLevel, format: 'json' | 'pretty', stderr: LineWriter): Logger {
  const options = { level, base: null, messageKey: 'message', timestamp: pino.stdTimeFunctions.isoTime };
  if (format === 'json') return pino(options, stderr);
  const colored = stderrIsTerminal();
  return pino(options, { write: (line) => stderr.write(prettyLine(line, colored)) });
}
