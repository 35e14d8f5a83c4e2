import t from 'tap';
import { Check } from 'typebox/schema';
import { SCHEMAS } from '../../protocol/control/schema.js';
import { EventLog } from '../../src/ops/event-log.js';
import { EVENT_BYTES_MAX } from '../../src/ops/event-memory.js';

function recorder(level = 'debug'): {
  log: EventLog;
  lines: { level: string; fields: object; message: string }[];
} {
  const lines: { level: string; fields: object; message: string }[] = [];
  const at =
    (level: string) =>
    (fields: object, message: string): void => {
      lines.push({ level, fields, message });
    };
  return {
    log: new EventLog({ level, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }),
    lines,
  };
}

void t.test('an event goes to the log, to memory and to followers', (t) => {
  const { log, lines } = recorder();
  const followed: string[] = [];
  const stop = log.subscribe(({ event }) => followed.push(event));
  log.emit('vm-connected', 'hello', { pid: 1 }, 'web-1');
  log.emit('stats-received', 'details', {}, 'web-1');
  stop();
  log.emit('vm-disconnected', 'bye', {}, 'web-1');
  t.same(lines[0], {
    level: 'info',
    fields: { event: 'vm-connected', vm: 'web-1', pid: 1 },
    message: 'web-1: hello',
  });
  t.equal(log.recent(0)[0]?.message, 'hello', 'clients show the VM beside it');
  t.same(
    log.recent(0).map(({ event, vm }) => `${event} ${vm ?? ''}`),
    ['vm-connected web-1', 'vm-disconnected web-1'],
    'debug events are only logged',
  );
  t.same(followed, ['vm-connected']);
  t.equal(log.recent(log.recent(0)[0]?.seq ?? 0).length, 1);
  t.end();
});

void t.test('a debug event that the log leaves out is counted, and nothing else', (t) => {
  const { log, lines } = recorder('info');
  for (let n = 0; n < 3; n++) log.emit('stats-received', 'details', {}, 'web-1');
  t.same([lines, log.recent(0), log.counts.get('stats-received')], [[], [], 3]);
  t.end();
});

void t.test('one VM that floods neither fills the log nor hides another', (t) => {
  const { log, lines } = recorder();
  for (let n = 0; n < 10_000; n++) log.emit('frontend-error', 'again', {}, 'bad');
  log.emit('frontend-error', 'once', {}, 'good');
  const bad = lines.filter(({ message }) => message === 'bad: again').length;
  t.ok(bad >= 10 && bad < 20, `${bad} of 10,000 lines`);
  t.equal(lines.at(-1)?.message, 'good: once');
  t.equal(log.recent(0).length, lines.length);
  t.end();
});

void t.test('a VM that goes and comes again at once is not told of anew', (t) => {
  const { log, lines } = recorder();
  for (let n = 0; n < 1000; n++) {
    log.emit('vm-connected', 'here I am', {}, 'restless');
    log.forget('restless');
  }
  log.emit('vm-connected', 'here I am', {}, 'other');
  const told = lines.filter(({ message }) => message === 'restless: here I am').length;
  t.ok(told >= 10 && told < 20, `${told} of 1,000 lines`);
  t.equal(lines.at(-1)?.message, 'other: here I am');
  t.end();
});

void t.test('memory is bounded', (t) => {
  const { log } = recorder();
  for (let n = 0; n < 3000; n++) log.emit('vm-connected', 'x', {}, `vm-${n}`);
  t.equal(log.recent(0).length, 1000);
  t.equal(log.recent(0).at(-1)?.seq, 3000);
  t.end();
});

void t.test('an event that is too long is remembered cut, and logged whole', (t) => {
  const { log, lines } = recorder();
  const message = '𝒳'.repeat(EVENT_BYTES_MAX);
  log.emit('vm-dropped', message, { why: message }, 'web-1');
  t.equal(lines[0]?.message, `web-1: ${message}`);
  const [event] = log.recent(0);
  t.ok(Check(SCHEMAS.Event, event));
  t.ok(Buffer.byteLength(JSON.stringify(event)) < EVENT_BYTES_MAX);
  t.match(event?.message, /^𝒳+…$/u);
  t.end();
});
