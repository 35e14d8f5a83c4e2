import fc from 'fast-check';
import t from 'tap';
import {
  followLimits,
  mayUseBytes,
  nextLimit,
  ownBytes,
  STEP_BYTES,
  type GuestUse,
} from '../../src/vm/limits-plan.js';

const bytes = fc.integer({ min: 0, max: 2 ** 42 });
const uses = fc
  .record({
    ramBytes: bytes,
    target: fc.double({ min: 0, max: 1, noNaN: true }),
    held: fc.double({ min: 0, max: 1, noNaN: true }),
    tellsFirst: fc.boolean(),
  })
  .map(({ ramBytes, target, held, tellsFirst }): GuestUse => ({
    ramBytes,
    targetBytes: Math.floor(ramBytes * target),
    discardedBytes: Math.floor(ramBytes * held),
    tellsFirst,
    sharesMemory: true,
  }));

void t.test('a limit that follows is never under what the guest may use and the VMM uses', (t) => {
  fc.assert(
    fc.property(uses, bytes, fc.option(bytes), bytes, (use, own, now, charged) => {
      const mayUse = mayUseBytes(use);
      const { highBytes, maxBytes } = followLimits(mayUse, own, use.ramBytes);
      t.ok(highBytes > mayUse + own && maxBytes > highBytes);
      for (const wanted of [highBytes, maxBytes]) {
        const next = nextLimit(now, wanted, charged);
        if (next !== null && next < wanted) return false;
        // Lowered, it is still above all that is charged.
        const lowered = next !== null && (now === null || next < now);
        if (lowered && next < charged + STEP_BYTES) return false;
        if (nextLimit(next, wanted, charged) !== next) return false;
      }
      return true;
    }),
  );
  t.end();
});

void t.test('what the guest may use: all that is not both asked for and discarded', (t) => {
  fc.assert(
    fc.property(uses, (use) => {
      const mayUse = mayUseBytes(use);
      if (!use.tellsFirst) return mayUse === use.ramBytes;
      return mayUse >= use.ramBytes - use.discardedBytes && mayUse >= use.ramBytes - use.targetBytes;
    }),
  );
  t.end();
});

void t.test("the VMM's own memory", (t) => {
  t.equal(ownBytes({ anon: 10, kernel: 20, slab: 15, file: 500, shmem: 400 }, 400), 30);
  t.equal(ownBytes({ anon: 10, kernel: 20, shmem: 430 }, 400), 60, 'shmem that cannot be the guest');
  t.equal(ownBytes({ anon: 10, pagetables: 5, slab: 15, sock: 1 }, 0), 31, 'before Linux 5.18');
  t.equal(ownBytes({}, 0), 0);
  t.equal(
    ownBytes({ anon: 300, shmem: 50, kernel: 20 }, 400, false),
    20,
    'all of it may be memory of the guest',
  );
  t.equal(ownBytes({ anon: 500, shmem: 50, kernel: 20 }, 400, false), 170, 'memory that cannot be the guest');
  t.end();
});
