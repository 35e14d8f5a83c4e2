import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import { EVENT_IDS } from '../../protocol/control/event-ids.js';
import type { EventLevel } from '../../protocol/control/events.js';
import {
  encodeJournalEntry,
  JOURNAL_SOCKET,
  journalFieldName,
  PRIORITIES,
  type JournalEntry,
} from '../../protocol/journal.js';
import { monotonicNow, msSince } from '../os/clock.js';
import { closeFd } from '../os/fd.js';
import { createMemfd, sealMemfd } from '../os/memfd.js';
import { connectDatagram, sendDescriptor } from '../os/socket.js';
import { DatagramSender } from './datagram.js';
import type { LoggedFields } from './event-log.js';
import type { LogLevel } from '../../protocol/control/log-levels.js';
import type { LevelledLog } from './levelled-log.js';

const { EMSGSIZE, ENOBUFS } = constants.errno;
/** A journal works again when it has taken all entries for so long: one that is slow takes some and refuses others. */
const STEADY_MS = 1000;
/** The largest number of a priority that is logged. */
const LEAST: Readonly<Record<string, number>> = {
  trace: PRIORITIES.debug,
  ...PRIORITIES,
  fatal: PRIORITIES.error - 1,
} satisfies Record<LogLevel, number>;

/**
 * Log lines as entries of the journal, whose fields can be searched by. What the journal does not take goes to
 * `fallback`, which hears why, once until the journal works again. It never waits: guests do.
 */
export class JournalLog implements LevelledLog {
  readonly #path: string;
  readonly #fallback: LevelledLog;
  #sender: DatagramSender | null = null;
  level: string;
  /** Lines that went to stderr since the journal took none, and when the last of them did. */
  #astray = 0;
  #astrayAt = monotonicNow();

  constructor(level: LogLevel, fallback: LevelledLog, path = JOURNAL_SOCKET) {
    this.level = level;
    this.#fallback = fallback;
    this.#path = path;
  }

  debug(fields: LoggedFields, message: string): void {
    this.#write('debug', fields, message);
  }

  info(fields: LoggedFields, message: string): void {
    this.#write('info', fields, message);
  }

  warn(fields: LoggedFields, message: string): void {
    this.#write('warn', fields, message);
  }

  error(fields: LoggedFields, message: string): void {
    this.#write('error', fields, message);
  }

  /** An open one keeps the process going. */
  close(): void {
    this.#sender?.close();
    this.#sender = null;
  }

  #write(level: EventLevel, fields: LoggedFields, message: string): void {
    if (PRIORITIES[level] > (LEAST[this.level] ?? PRIORITIES.info)) return;
    const why = this.#send(encodeJournalEntry(journalEntry(level, fields, message)));
    if (why === null) {
      if (this.#astray > 0 && msSince(this.#astrayAt) >= STEADY_MS) this.#backInTheJournal();
      return;
    }
    this.#astrayAt = monotonicNow();
    if (this.#astray++ === 0) {
      const said = `the journal takes no entries (${why}), so the log goes to stderr: start systemd-journald, or give --log-format json`;
      this.#fallback.warn({ event: 'journal-failed' }, said);
    }
    this.#fallback.level = this.level;
    this.#fallback[level](fields, message);
  }

  #backInTheJournal(): void {
    const lines = this.#astray;
    this.#astray = 0;
    const said = `the journal takes entries again, after ${lines} lines went to stderr`;
    this.#write('info', { event: 'journal-works', lines }, said);
  }

  /** Why it could not be sent; null: it was. */
  #send(entry: Buffer): string | null {
    try {
      this.#sender ??= new DatagramSender(this.#path);
      const errno = this.#sender.send(entry);
      if (errno === EMSGSIZE || errno === ENOBUFS) return sendFile(this.#path, entry);
      return errno === 0 ? null : errnoName(errno);
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }
}

/** What is too large for a datagram goes as a file, sealed so that the journal need not copy it before it looks. */
function sendFile(path: string, entry: Buffer): string | null {
  const file = createMemfd('journal-entry', 0);
  try {
    for (let at = 0; at < entry.length;) at += writeSync(file, entry, at);
    sealMemfd(file);
    const socket = connectDatagram(path);
    try {
      return sendDescriptor(socket, file) ? null : 'EAGAIN';
    } finally {
      closeFd(socket);
    }
  } finally {
    closeFd(file);
  }
}

function journalEntry(
  level: EventLevel,
  { event, vm, ...fields }: LoggedFields,
  message: string,
): JournalEntry {
  const own = Object.entries(fields).map(([name, value]) => [
    journalFieldName(name),
    typeof value === 'string' || typeof value === 'number' ? value : JSON.stringify(value ?? null),
  ]);
  return {
    ...(Object.fromEntries(own) as JournalEntry),
    MESSAGE: message,
    PRIORITY: PRIORITIES[level],
    SYSLOG_IDENTIFIER: 'balloond',
    MESSAGE_ID: EVENT_IDS[event],
    BALLOOND_EVENT: event,
    ...(vm !== undefined && { BALLOOND_VM: vm }),
  };
}

function errnoName(errno: number): string {
  const entry = Object.entries(constants.errno).find(([, value]) => value === errno);
  return entry?.[0] ?? `errno ${errno}`;
}
