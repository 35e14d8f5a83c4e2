import t from 'tap';
import { SizedGuest, type SizedGuestOptions } from './sized-guest.js';
import { MIB } from './world.js';

interface Scripted {
  readonly options: SizedGuestOptions;
  /** The guest settles at that size in MiB, give or take. */
  readonly settles: number;
  readonly within: number;
}

/** Debian's kernel in 1 GiB, with transparent huge pages: it keeps so much free, and gives the last of that to no program. */
const DEBIAN = { watermarksMib: [55, 66], leastFreeMib: 44 } as const;

const SCRIPTED: Readonly<Record<string, Scripted>> = {
  'anonymous memory alone': { options: { anonymousMib: 256 }, settles: 88 + 256, within: 70 },
  'anonymous memory beside a cold stream': {
    options: { anonymousMib: 256, streamMibPerSecond: 128, ...DEBIAN },
    settles: 88 + 256 + 44,
    within: 30,
  },
  'much of it beside a slow stream': {
    options: { anonymousMib: 512, streamMibPerSecond: 24, ...DEBIAN },
    settles: 88 + 512 + 44,
    within: 24,
  },
  'both at once beside a stream': {
    options: { anonymousMib: 128, rereadMib: 128, streamMibPerSecond: 64, ...DEBIAN },
    settles: 88 + 256 + 44,
    within: 90,
  },
  'page cache that is read over and over': { options: { rereadMib: 256 }, settles: 88 + 256, within: 70 },
  'a small set in the page cache': { options: { rereadMib: 64 }, settles: 88 + 64, within: 70 },
  'both at once': { options: { anonymousMib: 128, rereadMib: 128 }, settles: 88 + 256, within: 70 },
  'a kernel that keeps much free for transparent huge pages': {
    options: { rereadMib: 256, watermarksMib: [62, 75] },
    settles: 88 + 256,
    within: 70,
  },
  'Linux 6.1, which tells of no reclaim, with what its VMM read': {
    options: { rereadMib: 256, tells: ({ readBytes }) => ({ reclaimedBytes: NaN, readBytes }) },
    settles: 88 + 256,
    within: 70,
  },
};

for (const [name, { options, settles, within }] of Object.entries(SCRIPTED)) {
  void t.test(`${name}: the balloon leaves the working set`, (t) => {
    const guest = new SizedGuest(options).run(150);
    t.equal(guest.oomKills, 0);
    const sizes = sizesOf(guest, 30, 'held');
    t.ok(
      sizes.every((size) => Math.abs(size - settles) <= within),
      `sizes of 30 s are ${Math.min(...sizes)} to ${Math.max(...sizes)} MiB of ${settles}`,
    );
    t.end();
  });
}

function sizesOf(guest: SizedGuest, seconds: number, which: 'size' | 'held' = 'size'): number[] {
  const sizes: number[] = [];
  for (let second = 0; second < seconds; second++) sizes.push(guest.run(1)[which]);
  return sizes;
}

void t.test('a working set in the page cache is probed ever less often, and read again a little', (t) => {
  const guest = new SizedGuest({ rereadMib: 256 }).run(180);
  const hurtsBefore = guest.count('hurt');
  t.ok(hurtsBefore > 0, 'a probe that takes of the working set hurts');
  const readBefore = guest.read;
  guest.run(240);
  t.ok(guest.count('hurt') - hurtsBefore <= 5, 'once a minute at most');
  t.ok(guest.read - readBefore < 0.02 * 240 * 400, 'at most a fiftieth is read again');
  t.equal(guest.count('stream'), 0, 'it is taken for no stream');
  t.end();
});

void t.test('a step that hurts is given back with some more, and the cache is left alone', (t) => {
  const guest = new SizedGuest({ rereadMib: 256 });
  while (guest.count('hurt') === 0 && guest.now < 400) guest.run(0.5);
  const [before, hurt] = guest.looks.slice(-2);
  t.equal(hurt?.why.kind, 'hurt');
  const step = hurt?.why.kind === 'hurt' ? hurt.why.bytes : NaN;
  t.equal((before?.targetBytes ?? NaN) - (hurt?.targetBytes ?? NaN), step + 16 * MIB);
  const { now } = guest;
  while (guest.now < now + 9) guest.run(0.5);
  t.notOk(
    guest.looks.some((look) => look.now > now && look.why.kind === 'probes'),
    'none for 9 s',
  );
  t.end();
});

void t.test('a working set that shrinks is followed down, and one that grows is followed up', (t) => {
  const guest = new SizedGuest({ rereadMib: 384 }).run(240);
  t.ok(guest.size > 384 + 60, `${guest.size} MiB hold 384`);
  guest.reread = 96;
  guest.run(120);
  t.ok(guest.size < 96 + 88 + 80, `${guest.size} MiB for 96`);
  guest.reread = 384;
  guest.run(90);
  t.ok(guest.hot > 345, `${guest.hot} of 384 MiB are in the page cache again`);
  t.end();
});

void t.test('memory that fits shortens no time for which the page cache is left alone', (t) => {
  const guest = new SizedGuest({ rereadMib: 96 }).run(240);
  const [fitted, leaveUntil] = [guest.count('fits'), guest.now + 60];
  guest.state = { ...guest.state, leaveUntil, leaveSeconds: 60 };
  guest.reread = 384;
  for (let n = 0; n < 240 && guest.count('fits') === fitted; n++) guest.run(0.125);
  t.equal(guest.count('fits'), fitted + 1);
  t.equal(guest.state.leaveUntil, leaveUntil);
  t.end();
});

void t.test(
  'a cold stream gets all memory once, for some seconds, and is known as long as it goes on',
  (t) => {
    const guest = new SizedGuest({ anonymousMib: 128, ...DEBIAN }).run(60);
    const small = guest.size;
    guest.stream = 128;
    const large = sizesOf(guest, 90).filter((size) => size > small + 60);
    t.equal(guest.count('stream'), 1);
    t.ok(large.length > 0 && large.length <= 16, `it is larger for ${large.length} s`);
    t.ok(guest.size < small + 30, `${guest.size} MiB, and ${small} without the stream`);
    t.ok(guest.count('gave') <= 10, 'it is not explored again');
    guest.stream = 0;
    guest.run(60);
    t.ok(guest.free > 44 + 8, `when it has ended, ${guest.free} MiB are free for what comes`);
    t.end();
  },
);

void t.test('a stream that stops for some seconds is explored again once a minute at most', (t) => {
  const guest = new SizedGuest({ anonymousMib: 128, streamMibPerSecond: 128, ...DEBIAN }).run(40);
  t.equal(guest.count('stream'), 1);
  for (let stop = 0; stop < 10; stop++) {
    guest.stream = 0;
    guest.run(8);
    guest.stream = 128;
    guest.run(16);
  }
  t.ok(guest.count('stream') <= 5, `${guest.count('stream')} times in 4 minutes and 40 s`);
  t.end();
});

void t.test('a stream whose speed changes all the time is neither explored again nor in the way', (t) => {
  const guest = new SizedGuest({ anonymousMib: 128, streamMibPerSecond: 128, ...DEBIAN }).run(40);
  const sizes: number[] = [];
  for (let second = 0; second < 60; second++) {
    guest.stream = [128, 70, 190, 60, 128, 200, 90, 150][second % 8] ?? NaN;
    guest.run(1);
    if (second >= 15) sizes.push(guest.size);
  }
  t.equal(guest.count('stream'), 1);
  t.ok(Math.max(...sizes) < 88 + 128 + 66 + 20, `${Math.max(...sizes)} MiB at most`);
  t.end();
});

void t.test('free memory that takes up memory of the host is reported while the guest is aired', (t) => {
  const aired = (reported: number): SizedGuest => {
    const guest = new SizedGuest({ rereadMib: 64, streamMibPerSecond: 128, reported, ...DEBIAN }).run(60);
    guest.stream = 0;
    return guest.run(120);
  };
  const guest = aired(0.85);
  t.ok(guest.count('airs') >= 1 && guest.count('airs') <= 4, `${guest.count('airs')} times`);
  t.ok(guest.size > 88 + 64 + 44, 'its kernel keeps memory free');
  const held = Array.from({ length: 120 }, () => guest.run(1).held).sort((a, b) => a - b);
  t.ok((held[60] ?? NaN) < 88 + 64 + 30, `the host has ${held[60]} MiB for half of the time`);
  const mute = aired(0);
  t.ok(mute.held > 88 + 64 + 40);
  const { length } = mute.looks;
  mute.run(3600);
  const airs = mute.looks.slice(length).filter(({ why }) => why.kind === 'airs').length;
  t.ok(airs <= 5, `${airs} times in an hour where that changes nothing`);
  t.end();
});

void t.test('a set in the page cache that begins after a stream is no part of it', (t) => {
  const guest = new SizedGuest({ streamMibPerSecond: 128, ...DEBIAN }).run(90);
  guest.stream = 0;
  guest.run(45);
  guest.reread = 256;
  guest.run(60);
  t.ok(guest.hot > 245, `${guest.hot} of 256 MiB are in the page cache`);
  t.end();
});

void t.test(
  'a set that begins with the end of a stream, and is read as fast, is no part of it for long',
  (t) => {
    const guest = new SizedGuest({ streamMibPerSecond: 128, loopMibPerSecond: 128, ...DEBIAN }).run(60);
    guest.stream = 0;
    guest.reread = 256;
    guest.run(240);
    t.ok(guest.hot > 245, `${guest.hot} of 256 MiB are in the page cache`);
    t.end();
  },
);

void t.test('a stream is known however much its kernel reclaims at once, and nothing then', (t) => {
  for (const [rate, low, high] of [
    [40, 6, 10],
    [40, 30, 80],
    [20, 30, 60],
    [60, 30, 100],
  ] as const) {
    const guest = new SizedGuest({ streamMibPerSecond: rate, watermarksMib: [low, high] }).run(90);
    const words = `${rate} MiB/s, ${high - low} MiB at once`;
    t.equal(guest.count('stream'), 1, words);
    t.ok(guest.size < 180, `${guest.size} MiB with ${words}`);
  }
  t.end();
});

void t.test('what a kernel reclaims beyond a step and leaves free is not read again', (t) => {
  const guest = new SizedGuest({ streamMibPerSecond: 40, watermarksMib: [30, 80] }).run(50);
  const hurts = guest.count('hurt');
  guest.stream = 0;
  guest.run(60);
  t.equal(guest.count('hurt'), hurts);
  t.ok(guest.held < 100, `${guest.held} MiB`);
  t.end();
});

void t.test('files that were read to their ends while all memory was given are no stream', (t) => {
  for (let seconds = 6; seconds <= 8.5; seconds += 0.25) {
    const guest = new SizedGuest({
      rereadMib: 64,
      loopMibPerSecond: 128,
      streamMibPerSecond: 128,
      ...DEBIAN,
    });
    guest.run(seconds);
    guest.stream = 0;
    guest.run(90);
    t.equal(guest.count('stream'), 0, `${seconds} s of reading`);
    t.ok(guest.hot > 60, `${guest.hot} of 64 MiB are in the page cache`);
  }
  t.end();
});

void t.test('a set that shrinks is followed, whichever pages its kernel gives up first', (t) => {
  const guest = new SizedGuest({ rereadMib: 384, stubborn: true, ...DEBIAN }).run(240);
  t.ok(guest.hot > 370, `${guest.hot} MiB of 384`);
  guest.reread = 64;
  guest.run(180);
  t.ok(guest.size < 88 + 64 + 66 + 60, `${guest.size} MiB for 64`);
  t.end();
});

void t.test('a guest that reads from its swap gets memory; a step that has it swap is given back', (t) => {
  let swapped = 0;
  const tells = () => ({ swappedInBytes: swapped * MIB, swappedOutBytes: swapped * MIB });
  const guest = new SizedGuest({ anonymousMib: 64, rereadMib: 128, tells }).run(120);
  swapped += 8;
  const { why } = guest.look();
  t.match(why, { kind: 'gave', need: 'swaps' });
  while (guest.state.phase !== 'probe' && guest.now < 900) guest.run(0.125);
  const hurts = guest.count('hurt');
  swapped += 2.5;
  guest.run(2);
  t.equal(guest.count('hurt'), hurts + 1);
  t.end();
});

void t.test('a guest whose driver gives nothing back when it runs out of memory has more left', (t) => {
  const guest = new SizedGuest({ anonymousMib: 256, givesOnOom: false }).run(120);
  t.ok(guest.free > 96 + 16 && guest.free < 96 + 66, `${guest.free} MiB are free`);
  t.end();
});

void t.test('a guest that grows gets memory at once, twice as much each time, and ends no program', (t) => {
  const guest = new SizedGuest({ anonymousMib: 64 }).run(60);
  const looks = guest.looks.length;
  guest.wants = 576;
  guest.run(10);
  t.equal(guest.oomKills, 0);
  t.equal(Math.round(guest.anonymous), 576);
  const gifts = guest.looks.slice(looks).flatMap(({ why }) => (why.kind === 'gave' ? [why] : []));
  t.ok(gifts.length >= 2 && gifts.length <= 8, `${gifts.length} gifts`);
  t.ok(gifts.every(({ bytes }, n) => n === 0 || bytes >= (gifts[n - 1]?.bytes ?? 0) || bytes >= 128 * MIB));
  t.end();
});

void t.test('pages that the guest took out of the balloon by itself stay with it', (t) => {
  const guest = new SizedGuest({ anonymousMib: 128 }).run(60);
  guest.actual -= 24;
  guest.anonymous += 24;
  guest.wants += 24;
  const { why, targetBytes } = guest.look();
  t.match(why, { kind: 'gave', need: 'took' });
  t.equal(Math.round(targetBytes / MIB), Math.round(guest.actual - 32));
  t.end();
});

void t.test('a probe that is not answered is given back', (t) => {
  const guest = new SizedGuest({ rereadMib: 256 });
  while (guest.state.phase !== 'probe' && guest.now < 300) guest.run(0.125);
  const { targetBytes } = guest.state;
  const { stepBytes } = guest.state;
  guest.silent = true;
  guest.run(20);
  t.equal(guest.count('unanswered'), 1);
  t.equal(guest.state.targetBytes, targetBytes - stepBytes);
  guest.run(600);
  t.equal(guest.state.targetBytes, targetBytes - stepBytes, 'nothing is asked of a guest that says nothing');
  guest.silent = false;
  guest.run(240);
  t.ok(guest.size < 88 + 256 + 60, 'it goes on where it was');
  t.end();
});

void t.test('a clock that steps back begins anew, with the step of the probe given back', (t) => {
  const guest = new SizedGuest({ rereadMib: 256 });
  while (guest.state.phase !== 'probe' && guest.now < 300) guest.run(0.125);
  const { targetBytes, stepBytes } = guest.state;
  guest.now -= 50;
  const { why } = guest.look();
  t.same(why, { kind: 'unanswered', bytes: stepBytes });
  t.equal(guest.state.targetBytes, targetBytes - stepBytes);
  guest.run(240);
  t.ok(guest.size < 88 + 256 + 60);
  t.end();
});

void t.test('without a signal of pages that are read again, only free memory is taken', (t) => {
  const tells = () => ({ reclaimedBytes: NaN, cacheBytes: NaN });
  const guest = new SizedGuest({ anonymousMib: 64, rereadMib: 256, tells }).run(120);
  t.equal(guest.count('probes'), 0);
  t.ok(guest.hot > 255, 'the page cache is left');
  t.ok(guest.size < 88 + 64 + 256 + 40, `${guest.size} MiB`);
  t.end();
});

void t.test('a guest that does not say what is free is left alone', (t) => {
  const guest = new SizedGuest({ tells: () => ({ freeBytes: NaN }) }).run(120);
  t.equal(guest.target, 0);
  t.ok(guest.looks.every(({ why }) => why.kind === 'blind'));
  t.end();
});

void t.test(
  'a guest that says it has nothing gets its ceiling, and one that says it has all keeps its floor',
  (t) => {
    const liar = (bytes: number) => () => ({ freeBytes: bytes, availableBytes: bytes, cacheBytes: bytes });
    const poor = new SizedGuest({ tells: liar(0), minMib: 128, maxMib: 512 }).run(120);
    t.equal(Math.round(poor.size), 512);
    const rich = new SizedGuest({ tells: liar(2 ** 60), minMib: 128, maxMib: 512 }).run(120);
    t.equal(Math.round(rich.size), 128);
    t.end();
  },
);

void t.test('page cache that Linux does not count as available is looked at, too, where it is small', (t) => {
  // Sizes that a Debian of 1 GiB told, with a set of 64 MiB, and with next to no page cache beside anonymous memory.
  const told = (free: number, available: number, caches: number) => () => ({
    freeBytes: free * MIB,
    availableBytes: available * MIB,
    cacheBytes: caches * MIB,
  });
  t.ok(new SizedGuest({ tells: told(62, 35, 86) }).run(10).count('probes') > 0);
  t.equal(new SizedGuest({ tells: told(62, 4, 24) }).run(10).count('probes'), 0);
  t.end();
});

void t.test('a guest that gives no more is asked for no more than it gave', (t) => {
  const guest = new SizedGuest({
    anonymousMib: 256,
    tells: ({ freeBytes }) => ({ freeBytes: freeBytes + 80 * MIB }),
  });
  guest.run(120);
  t.ok(guest.count('refused') > 0);
  t.equal(guest.oomKills, 0);
  t.end();
});

void t.test('the host gives no memory that it has not got', (t) => {
  const guest = new SizedGuest({ anonymousMib: 64, roomMib: 0 }).run(60);
  const { target } = guest;
  guest.stream = 128;
  guest.run(60);
  t.equal(guest.count('gave'), 0);
  t.equal(guest.count('stream'), 0, 'that says nothing of the guest');
  t.ok(guest.target >= target);
  t.end();
});

void t.test('at rest, statistics are asked for ever less often', (t) => {
  const guest = new SizedGuest({ anonymousMib: 256 }).run(600);
  const { length } = guest.looks;
  guest.run(600);
  t.ok(guest.looks.length - length <= 25, `${guest.looks.length - length} looks in ten minutes`);
  t.end();
});
