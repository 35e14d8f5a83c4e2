import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { EVENT_IDS } from '../../protocol/control/event-ids.js';
import { EVENT_NAMES, EVENTS } from '../../protocol/control/events.js';
import { messageCatalog } from '../../protocol/control/message-catalog.js';
import { encodeJournalEntry, isJournalStream, journalFieldName } from '../../protocol/journal.js';
import { EventLog, type LogSink } from '../../src/ops/event-log.js';
import type { LevelledLog } from '../../src/ops/levelled-log.js';
import { JournalLog } from '../../src/ops/journal-log.js';
import { closeFd } from '../../src/os/fd.js';
import { bindDatagram, receive } from '../../src/os/socket.js';

void t.test('an entry is read back by another decoder', (t) => {
  const entry = { MESSAGE: 'two\nlines', PRIORITY: 6, EMPTY: '', UTF: 'ü=\t' };
  t.strictSame(decode(encodeJournalEntry(entry)), { ...entry, PRIORITY: '6' });
  t.equal(
    encodeJournalEntry({ A: 'b\nc' }).toString('hex'),
    Buffer.from('A\n\x03\0\0\0\0\0\0\0b\nc\n').toString('hex'),
  );
  for (const name of ['_PID', 'a', '1A', 'A-B', '', 'A'.repeat(65)]) {
    t.throws(() => encodeJournalEntry({ [name]: 'x' }), RangeError, name);
  }
  t.equal(journalFieldName('actualBytes'), 'BALLOOND_ACTUAL_BYTES');
  t.equal(journalFieldName('tookMsPerSecond'), 'BALLOOND_TOOK_MS_PER_SECOND');
  t.equal(journalFieldName('é'.repeat(80)), 'BALLOOND__', 'whatever it is, the journal takes it');
  t.end();
});

void t.test('stderr is the journal where the service manager says so', (t) => {
  const at = statSync(t.testdir(), { bigint: true });
  t.ok(isJournalStream(`${at.dev}:${at.ino}`, at));
  t.notOk(isJournalStream(`${at.dev}:${at.ino}0`, at));
  t.notOk(isJournalStream(undefined, at));
  t.end();
});

void t.test('each event has an id of its own, and an entry in the catalog', (t) => {
  const ids = Object.values(EVENT_IDS);
  t.equal(new Set(ids).size, EVENT_NAMES.length);
  const catalog = messageCatalog();
  for (const name of EVENT_NAMES) {
    t.match(EVENT_IDS[name], /^[0-9a-f]{32}$/);
    const start = catalog.indexOf(`-- ${EVENT_IDS[name]}\nSubject: balloond: ${name}\n`);
    t.ok(start >= 0, name);
    const text = catalog.slice(start, catalog.indexOf('\n-- ', start)).replaceAll('`', '');
    t.ok(text.includes(EVENTS[name].help.replaceAll('`', '')), name);
    t.ok(text.includes((EVENTS[name].action ?? 'Nothing is to be done.').replaceAll('`', '')), name);
  }
  t.end();
});

void t.test('events are entries that can be searched by VM', (t) => {
  const { log, entries } = journal(t);
  log.emit('target-reached', 'the balloon holds 1 GiB', { actualBytes: 7, list: ['a'] }, 'web-1');
  log.emit('stats-received', 'not at this level');
  log.emit('vm-dropped', 'x'.repeat(3_000_000), {}, 'web-2');
  const [first, second, ...more] = entries();
  t.match(first, {
    MESSAGE: 'web-1: the balloon holds 1 GiB',
    PRIORITY: '6',
    MESSAGE_ID: EVENT_IDS['target-reached'],
    SYSLOG_IDENTIFIER: 'balloond',
    BALLOOND_EVENT: 'target-reached',
    BALLOOND_VM: 'web-1',
    BALLOOND_ACTUAL_BYTES: '7',
    BALLOOND_LIST: '["a"]',
  });
  t.equal(second?.['MESSAGE']?.length, 'web-2: '.length + 3_000_000, 'through a file');
  t.match(second, { PRIORITY: '3', BALLOOND_VM: 'web-2' });
  t.same(more, []);
  t.end();
});

void t.test('without a journal all goes to stderr, and it says so once', (t) => {
  for (const path of [join(t.testdir(), 'nobody'), '@abstract', `/${'x'.repeat(107)}`]) {
    const said: string[] = [];
    const sink = recorder(said);
    const log = new JournalLog('info', sink, path);
    const events = new EventLog(log);
    events.emit('vm-connected', 'one', {}, 'web-1');
    events.emit('stats-received', 'not at this level');
    events.emit('vm-disconnected', 'two', {}, 'web-1');
    log.close();
    t.match(said, [
      /^warn journal-failed .*--log-format json/,
      'info vm-connected web-1: one',
      'info vm-disconnected web-1: two',
    ]);
    t.equal(said.length, 3);
  }
  t.end();
});

void t.test('a journal that is full keeps nobody waiting, and is gone back to', async (t) => {
  const said: string[] = [];
  const { log, entries } = journal(t, recorder(said));
  for (let n = 0; n < 2000; n++) log.emit('vm-connected', 'hello', {}, `vm-${n}`);
  const written = entries().length;
  t.ok(written > 0 && written < 2000, `${written} fit`);
  t.equal(written + said.length, 2001, 'nothing is lost');
  t.match(said[0], /EAGAIN/);
  const back: Record<string, string>[] = [];
  for (let n = 0; !back.some((entry) => entry['BALLOOND_EVENT'] === 'journal-works'); n++) {
    log.emit('vm-disconnected', 'bye', {}, `vm-${n}`);
    back.push(...entries());
    await sleep(20);
  }
  const lines = String(2000 - written);
  t.match(back.at(-1), {
    BALLOOND_LINES: lines,
    MESSAGE: `the journal takes entries again, after ${lines} lines went to stderr`,
  });
  t.equal(said.length, 2001 - written, 'stderr hears no more');
});

function recorder(said: string[]): LevelledLog {
  const at =
    (level: string): LogSink['info'] =>
    ({ event }, message) =>
      said.push(`${level} ${event} ${message}`);
  return { level: 'info', debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** A socket as journald's, and what came to it since it was last asked. */
function journal(
  t: Test,
  fallback: LevelledLog = recorder([]),
): { log: EventLog; entries: () => Record<string, string>[] } {
  // tap's own folders have names too long for a socket.
  const folder = mkdtempSync(join(tmpdir(), 'balloond-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'journal');
  const fd = bindDatagram(path);
  const log = new JournalLog('info', fallback, path);
  t.teardown(() => {
    log.close();
    closeFd(fd);
  });
  const entries = (): Record<string, string>[] => {
    const found: Record<string, string>[] = [];
    const buffer = new Uint8Array(300_000);
    for (;;) {
      const fds: number[] = [];
      const got = receive(fd, buffer, 0, buffer.length, fds);
      if (got < 0) return found;
      const [file] = fds;
      if (file === undefined) found.push(decode(Buffer.from(buffer.subarray(0, got))));
      else {
        found.push(decode(readFileSync(`/proc/self/fd/${file}`)));
        closeFd(file);
      }
    }
  };
  return { log: new EventLog(log), entries };
}

function decode(bytes: Buffer): Record<string, string> {
  const entry: Record<string, string> = {};
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf('\n', at);
    const line = bytes.toString('utf8', at, end);
    const equals = line.indexOf('=');
    at = end + 1;
    if (equals >= 0) entry[line.slice(0, equals)] = line.slice(equals + 1);
    else {
      const length = Number(bytes.readBigUInt64LE(at));
      entry[line] = bytes.toString('utf8', at + 8, at + 8 + length);
      at += 8 + length + 1;
    }
  }
  return entry;
}
