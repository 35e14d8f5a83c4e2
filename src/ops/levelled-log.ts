/** A log that leaves out what is below a level. */
import type { LogSink } from './event-log.js';

export interface LevelledLog extends LogSink {
  /** The least level that is logged; may be changed. */
  level: string;
}
