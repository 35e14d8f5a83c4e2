// Nothing that the guest may use is ever discarded, whatever the guest, the VMM and the operator do, and in whatever
// order; and what is in the balloon is discarded in the end. A daemon in a process of its own serves a guest that
// looks for its acks without a pause, so that a discard that comes too late meets a page in use.
// MODEL_SEED=N replays what seed N did; MODEL_SECONDS=N goes on for that long (and TAP_TIMEOUT=N still longer).
import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { DaemonProcess } from '../support/daemon.js';
import { HUGE_PAGE_BYTES, reserveHugePages } from '../support/huge-pages.js';
import { MODEL_PAGES, MODEL_PFNS, ModelGuest, type Run, type Step } from '../support/model-guest.js';

const SECONDS = Number(process.env['MODEL_SECONDS'] ?? 30);
const SEED = Number(process.env['MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const GONE_WITHIN_MS = 10_000;

type Ending = 'disconnect' | 'SIGTERM' | 'SIGKILL';

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

const scenario = fc
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
type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never;

/** A daemon for as many VMs as it survives, one after the other. */
class Host {
  #daemon: DaemonProcess | null = null;

  async play(
    { steps, settles, ending, ...options }: Scenario,
    hugePageBytes: number | undefined,
  ): Promise<void> {
    const daemon = (this.#daemon ??= await DaemonProcess.start({
      config: '[[socket]]\npath = "{folder}/vhost.sock"\nname = "model"\n',
    }));
    const control = new ControlClient(join(daemon.folder, 'control.sock'));
    let guest: ModelGuest | null = null;
    try {
      guest = await ModelGuest.start(daemon.socketPath, control, 'model', {
        ...options,
        ...(hugePageBytes !== undefined && { hugePageBytes }),
      });
      for (const [n, step] of steps.entries()) await performed(guest, step, n);
      if (settles) await guest.perform({ kind: 'settle' });
      await guest.end(() => (ending === 'disconnect' ? untilNoVm(control) : this.stop(ending)));
    } catch (error) {
      // What it still does would be blamed on the next one.
      await this.stop('SIGKILL');
      throw new Error(`${String(error)}\n${daemon.log.slice(-1000)}`, { cause: error });
    } finally {
      guest?.close();
    }
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = null;
    await daemon?.stop(signal);
  }
}

async function performed(guest: ModelGuest, step: Step, n: number): Promise<void> {
  try {
    await guest.perform(step);
    guest.check();
  } catch (error) {
    throw new Error(`step ${n}, ${step.kind}: ${String(error)}`, { cause: error });
  }
}

async function untilNoVm(control: ControlClient): Promise<void> {
  const end = performance.now() + GONE_WITHIN_MS;
  while ((await control.list()).length > 0) {
    if (performance.now() > end) throw new Error('the daemon keeps the VM of a closed connection');
    await sleep(2);
  }
}

async function model(t: Test, seconds: number, hugePageBytes?: number): Promise<void> {
  t.comment(`MODEL_SEED=${SEED}`);
  const host = new Host();
  const end = performance.now() + seconds * 1000;
  let runs = 0;
  try {
    await fc.assert(
      fc.asyncProperty(scenario, async (scenario) => {
        if (performance.now() > end) return;
        runs++;
        await host.play(scenario, hugePageBytes);
      }),
      { seed: SEED, numRuns: 100 * seconds, includeErrorInReport: true },
    );
  } finally {
    await host.stop('SIGTERM');
    t.comment(`${runs} VMs`);
  }
  t.ok(runs > 0);
}

void t.test('4 KiB pages', (t) => model(t, Math.ceil((SECONDS * 2) / 3)));

void t.test('huge pages', async (t) => {
  t.ok(reserveHugePages(t, 8), 'the host has 8 huge pages to lend');
  await model(t, Math.ceil(SECONDS / 3), HUGE_PAGE_BYTES);
});
