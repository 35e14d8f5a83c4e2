import fc from 'fast-check';
import t from 'tap';
import { step, UNSIZED, type SizeReading, type SizeState } from '../../src/policy/working-set.js';
import { MIB } from './world.js';

/** A figure of a guest that may say anything. */
const claim = fc.oneof(
  fc.double({ min: 0, max: 2, noNaN: true }).map((share) => ({ share })),
  fc.constantFrom(NaN, 0, Infinity, -1, 2 ** 64).map((bytes) => ({ bytes })),
);
type Claim = typeof claim extends fc.Arbitrary<infer T> ? T : never;

const look = fc.record({
  seconds: fc.oneof(fc.double({ min: 0.1, max: 3, noNaN: true }), fc.constantFrom(0, 30, 600, -5)),
  told: fc.boolean(),
  follows: fc.double({ min: -0.1, max: 1.1, noNaN: true }),
  free: claim,
  available: claim,
  caches: claim,
  reclaimed: claim,
  faults: claim,
  stalls: claim,
  swapped: claim,
  read: claim,
  allocated: claim,
  min: fc.double({ min: 0, max: 1, noNaN: true }),
  max: fc.double({ min: 0, max: 1, noNaN: true }),
  room: fc.constantFrom(Infinity, 0, 50 * MIB, NaN),
});
type Look = typeof look extends fc.Arbitrary<infer T> ? T : never;

const scene = fc.record({
  ramBytes: fc.integer({ min: 64, max: 65536 }).map((mib) => mib * MIB),
  looks: fc.array(look, { minLength: 1, maxLength: 60 }),
});

interface Seen {
  readonly before: SizeState;
  readonly reading: SizeReading;
  readonly limits: { leastTargetBytes: number; mostTargetBytes: number; roomBytes: number };
  readonly now: number;
  readonly sized: ReturnType<typeof step>;
}

/** Shows each step of a guest that says anything, and follows as it likes. */
function run(
  { ramBytes, looks }: { ramBytes: number; looks: readonly Look[] },
  see: (seen: Seen) => void,
): void {
  const page = (share: number): number => Math.floor((share * ramBytes) / 4096) * 4096;
  const said = (one: Claim): number => ('share' in one ? one.share * ramBytes : one.bytes);
  let state = UNSIZED;
  let [now, statsSeconds, targetBytes, actualBytes] = [1000, NaN, 0, 0];
  for (const { seconds, told, follows, min, max, room, ...claims } of looks) {
    now += seconds;
    if (told) statsSeconds = now;
    const way = actualBytes + follows * (targetBytes - actualBytes);
    actualBytes = page(Math.max(0, Math.min(1, way / ramBytes)));
    const reading = {
      ...{ ramBytes, targetBytes, actualBytes, statsSeconds },
      freeBytes: said(claims.free),
      availableBytes: said(claims.available),
      cacheBytes: said(claims.caches),
      reclaimedBytes: said(claims.reclaimed),
      majorFaults: said(claims.faults),
      stalls: said(claims.stalls),
      swappedInBytes: said(claims.swapped),
      swappedOutBytes: said(claims.faults),
      givesOnOom: told,
      readBytes: said(claims.read),
      allocatedBytes: said(claims.allocated),
    };
    const limits = {
      leastTargetBytes: ramBytes - page(Math.max(min, max)),
      mostTargetBytes: ramBytes - page(Math.min(min, max)),
      roomBytes: room,
    };
    const sized = step(state, reading, limits, now);
    see({ before: state, reading, limits, now, sized });
    ({ state, targetBytes } = sized);
  }
}

const RUNS = { numRuns: 1000 };

void t.test('floors and ceilings hold, and targets are whole pages, whatever a guest says', (t) => {
  fc.assert(
    fc.property(scene, (given) => {
      run(given, ({ limits, sized: { targetBytes } }) => {
        if (!(targetBytes <= limits.mostTargetBytes)) throw new Error(`${targetBytes}: below the floor`);
        if (!(targetBytes >= limits.leastTargetBytes)) throw new Error(`${targetBytes}: above the ceiling`);
        if (targetBytes % 4096 !== 0) throw new Error(`${targetBytes}: no target`);
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('no rate becomes NaN, and the next look is at most half a minute away', (t) => {
  fc.assert(
    fc.property(scene, (given) => {
      run(given, ({ sized: { state, againSeconds } }) => {
        const { rate, streamRate, growthRate, leaveSeconds, stepBytes, gives } = state;
        for (const figure of [rate, streamRate, growthRate, leaveSeconds, stepBytes, gives])
          if (!(figure >= 0)) throw new Error(JSON.stringify(state));
        if (!(againSeconds >= 0.25 && againSeconds <= 30)) throw new Error(`again in ${againSeconds} s`);
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('a gift is never larger than the room that the host has for it', (t) => {
  fc.assert(
    fc.property(scene, (given) => {
      run(given, ({ limits, sized: { why } }) => {
        if ((why.kind === 'gave' || why.kind === 'airs') && !(why.bytes <= limits.roomBytes))
          throw new Error('gave what is not there');
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('without new statistics, nothing more is taken', (t) => {
  fc.assert(
    fc.property(scene, (given) => {
      run(given, ({ before, reading, limits, sized }) => {
        const known = reading.statsSeconds <= before.statsSeconds || Number.isNaN(reading.statsSeconds);
        const least = Math.max(reading.targetBytes, limits.leastTargetBytes);
        if (known && sized.targetBytes > least) throw new Error('took of a guest that says nothing');
      });
    }),
    RUNS,
  );
  t.end();
});

void t.test('the same input gives the same step, and is left as it was', (t) => {
  fc.assert(
    fc.property(scene, (given) => {
      run(given, ({ before, reading, limits, now, sized }) => {
        const input = JSON.stringify([before, reading, limits]);
        if (JSON.stringify(step(before, reading, limits, now)) !== JSON.stringify(sized))
          throw new Error('differs');
        if (JSON.stringify([before, reading, limits]) !== input) throw new Error('changed its input');
      });
    }),
    RUNS,
  );
  t.end();
});
