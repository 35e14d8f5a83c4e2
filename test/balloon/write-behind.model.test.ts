// Nothing that the guest may use is ever discarded, whatever the guest, the VMM and the operator do, and in whatever
// order; and what is in the balloon is discarded in the end. A daemon in a process of its own serves a guest that
// looks for its acks without a pause, so that a discard that comes too late meets a page in use.
// MODEL_SEED=N replays what seed N did; MODEL_SECONDS=N goes on for that long (and TAP_TIMEOUT=N still longer).
import fc from 'fast-check';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { DaemonProcess } from '../support/daemon.js';
import { HUGE_PAGE_BYTES, reserveHugePages } from '../support/huge-pages.js';
import { ModelGuest, type Step } from '../support/model-guest.js';
import { scenario, type Scenario } from '../support/model-scenario.js';
import { eventually } from '../support/deadline.js';

const SECONDS = Number(process.env['MODEL_SECONDS'] ?? 8);
const SEED = Number(process.env['MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

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
  await eventually(
    async () => (await control.list()).length === 0,
    () => 'the daemon lets go of the VM of a closed connection',
    2,
  );
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
