import t from 'tap';
import { prettyLine } from '../../src/ops/pretty-line.js';

const ENTRY = {
  level: 40,
  time: '2026-11-23T12:00:01.250Z',
  event: 'vm-throttled',
  vm: 'web-1',
  tookMsPerSecond: 400,
  message: 'web-1: the VM keeps the event loop busy',
};

void t.test('when, how bad, what, of which VM, and the figures', (t) => {
  t.equal(
    prettyLine(JSON.stringify(ENTRY), false),
    '12:00:01.250 warn  vm-throttled web-1: the VM keeps the event loop busy {"tookMsPerSecond":400}\n',
  );
  const { level, time, event } = ENTRY;
  const message = 'the daemon waits';
  t.equal(
    prettyLine(JSON.stringify({ level: level - 10, time, event, message }), false),
    '12:00:01.250 info  vm-throttled the daemon waits\n',
  );
  t.equal(prettyLine(JSON.stringify({ level: 25, time, message }), false), `12:00:01.250 25    ${message}\n`);
  t.end();
});

void t.test('nothing in it drives the terminal but its own colours', (t) => {
  const hostile = JSON.stringify({
    ...ENTRY,
    vm: 'v\x9bm',
    message: 'v\x9bm: a\x1b[2Jb\nc',
    path: '\x1b]0;x\x07\x9b1m',
  });
  const plain = prettyLine(hostile, false);
  t.notMatch(plain.slice(0, -1), /\p{Cc}/u);
  t.match(plain, 'a?[2Jb?c');
  t.notMatch(
    prettyLine(hostile, true)
      .replaceAll(/\x1b\[\d+m/g, '')
      .slice(0, -1),
    /\p{Cc}/u,
  );
  t.match(prettyLine(hostile, true), '\x1b[33mwarn \x1b[0m');
  t.end();
});
