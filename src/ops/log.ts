import { pino, type Logger } from 'pino';
import pretty from 'pino-pretty';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ['json', 'pretty'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** One line an event on stderr; stdout stays free for what was asked for. */
export function createLogger(level: LogLevel, format: LogFormat): Logger {
  const options = { level, base: null, messageKey: 'message', timestamp: pino.stdTimeFunctions.isoTime };
  if (format === 'json') return pino(options, pino.destination({ dest: 2, sync: true }));
  return pino(
    options,
    pretty({
      destination: 2,
      sync: true,
      messageKey: 'message',
      colorize: process.stderr.isTTY,
      singleLine: true,
    }),
  );
}
