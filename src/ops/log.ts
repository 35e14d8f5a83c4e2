import { fstatSync } from 'node:fs';
import { pino, type Logger } from 'pino';
import { isJournalStream } from '../../protocol/journal.js';
import type { LogSink } from './event-log.js';
import { JournalLog } from './journal-log.js';
import { prettyLine } from './pretty-line.js';

const STDERR = 2;

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ['json', 'pretty', 'journal'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What suits stderr. */
export function defaultFormat(environment = process.env): LogFormat {
  if (isJournalStream(environment['JOURNAL_STREAM'], fstatSync(STDERR, { bigint: true }))) return 'journal';
  return process.stderr.isTTY ? 'pretty' : 'json';
}

export interface LevelledLog extends LogSink {
  /** The least level that is logged; may be changed. */
  level: string;
}

/** One line an event on stderr, or one entry of the journal; stdout stays free for what was asked for. */
export function createLogger(level: LogLevel, format: LogFormat): LevelledLog {
  return format === 'journal' ? new JournalLog(level, lines(level, 'json')) : lines(level, format);
}

function lines(level: LogLevel, format: 'json' | 'pretty'): Logger {
  const options = { level, base: null, messageKey: 'message', timestamp: pino.stdTimeFunctions.isoTime };
  const stderr = pino.destination({ dest: STDERR, sync: true });
  if (format === 'json') return pino(options, stderr);
  const colored = process.stderr.isTTY;
  return pino(options, { write: (line) => stderr.write(prettyLine(line, colored)) });
}
