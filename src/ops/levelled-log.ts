/** A log that leaves out what is below a level, and the levels there are. */
import type { LogSink } from './event-log.js';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LevelledLog extends LogSink {
  /** The least level that is logged; may be changed. */
  level: string;
}
