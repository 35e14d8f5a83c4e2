// What a client that was away gets, and that it is told what it does not get.
import t from 'tap';
import { lastEventId, parseSince, replay, type EventFilter } from '../../src/control/event-replay.js';
import { MemoryEvents } from '../support/fleet.js';

/** Five events, of which the first two are forgotten. */
function source(): MemoryEvents {
  const events = new MemoryEvents();
  events.emit('daemon-started', 'one');
  events.emit('vm-connected', 'two', 'web1');
  events.emit('vm-connected', 'three', 'web2');
  events.emit('inhibited', 'four', 'web1');
  events.emit('vm-dropped', 'five', 'web2');
  events.forget(2);
  return events;
}

function asked(since: string | null, filter: EventFilter = {}): [seqs: number[], notice: string | null] {
  const { events, notice } = replay(source(), since === null ? null : parseSince(since), filter);
  return [events.map(({ seq }) => seq), notice];
}

void t.test('since', (t) => {
  const all = [3, 4, 5];
  t.same(asked(null), [[], null]);
  t.same(asked('0'), [all, null], 'all that is remembered is what was asked for');
  t.same(asked('2'), [all, null]);
  t.same(asked('4'), [[5], null]);
  t.same(asked('abcdef01-4'), [[5], null]);
  t.same(asked('abcdef01-5'), [[], null], 'there is no newer one');
  const cases: [since: string, notice: RegExp][] = [
    ['1', /^1 events after 1 are not remembered any more: the log/],
    ['abcdef01-0', /^2 events after abcdef01-0 are not remembered/],
    ['6', /^event 6 is beyond the newest, abcdef01-5: all/],
    ['abcdef01-999', /^event abcdef01-999 is beyond the newest/],
    ['00000000-4', /^event 00000000-4 is of another epoch: .*began epoch abcdef01: all/],
    ['2025-01-01T12:00:01Z', /^events before 2025-01-01T12:00:03.000Z are not remembered/],
  ];
  for (const [since, notice] of cases) {
    const [seqs, said] = asked(since);
    t.same(seqs, all, since);
    t.match(said, notice, since);
  }
  t.same(asked('2025-01-01T12:00:04Z'), [[4, 5], null]);
  t.same(asked('2025-01-01T14:00:05+02:00'), [[5], null]);
  t.same(asked('2030-01-01T00:00Z'), [[], null]);
  t.end();
});

void t.test('filters', (t) => {
  t.same(asked('0', { vm: 'web2' })[0], [3, 5]);
  t.same(asked('0', { level: 'warn' })[0], [4, 5]);
  t.same(asked('0', { level: 'error', vm: 'web1' })[0], []);
  t.match(asked('1', { vm: 'web1' }), [[4], /1 events after 1/], 'what is missing may have been of it');
  t.end();
});

void t.test('Last-Event-ID: a browser cannot help what it sends', (t) => {
  t.same(lastEventId('abcdef01-4'), { epoch: 'abcdef01', seq: 4 });
  for (const text of ['', 'x', '2025-01-01T12:00:04Z', '1, 2']) {
    const { events, notice } = replay(source(), lastEventId(text), {});
    t.equal(events.length, 3, text);
    t.match(notice, /none of this daemon.*all/);
  }
  t.end();
});
