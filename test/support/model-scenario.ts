// What a model guest (model-guest.ts) may be told to do, for fast-check.
import fc from 'fast-check';
import { MODEL_PAGES, MODEL_PFNS, type Run, type Step } from './model-guest.js';

export type Ending = 'disconnect' | 'SIGTERM' | 'SIGKILL';

/** Whole 2 MiB blocks and parts of them; anything; a few pages. */
const run: fc.Arbitrary<Run> = fc.oneof(
  fc
    .record({ eighth: fc.nat(MODEL_PAGES / 64 - 1), eighths: fc.integer({ min: 1, max: MODEL_PFNS / 64 }) })
    .map(({ eighth, eighths }) => ({ first: 64 * eighth, count: 64 * eighths, stride: 1 })),
  fc
    .record({ block: fc.nat(MODEL_PAGES / 512 - 1) })
    .map(({ block }) => ({ first: 512 * block, count: 512, stride: 1 })),
  fc.record({
    first: fc.nat(MODEL_PAGES - 1),
    count: fc.integer({ min: 1, max: 256 }),
    stride: fc.constantFrom(1, -1, 2, 7),
  }),
  fc.record({
    first: fc.nat(MODEL_PAGES - 1),
    count: fc.integer({ min: 1, max: 4 }),
    stride: fc.constant(1),
  }),
);
const buffers = fc.array(run, { minLength: 1, maxLength: 4 });
/** Around the bounds of what a discard may wait for. */
const ms = fc.oneof(fc.nat(12), fc.nat(60));

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('inflate' as const), buffers }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('deflate' as const), buffers }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('exchange' as const), inflate: run, deflate: run }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('use' as const, 'report' as const), run }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constantFrom('wait' as const, 'pause' as const), ms }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('inhibit' as const), ms }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('settle' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constantFrom('allow' as const, 'unplug' as const, 'plug' as const) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('reset' as const), ms, mustTellHost: fc.boolean() }),
  },
);

export const scenario = fc
  .record({
    mustTellHost: fc.oneof(
      { weight: 3, arbitrary: fc.constant(true) },
      { weight: 1, arbitrary: fc.constant(false) },
    ),
    memorySlots: fc.boolean(),
    steps: fc.array(step, { minLength: 1, maxLength: 30, size: 'max' }),
    settles: fc.boolean(),
    ending: fc.oneof(
      { weight: 12, arbitrary: fc.constant<Ending>('disconnect') },
      { weight: 1, arbitrary: fc.constantFrom<Ending>('SIGTERM', 'SIGKILL') },
    ),
  })
  // Without null prototypes a counterexample is half as long.
  .map((scenario) => structuredClone(scenario));
export type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never;
