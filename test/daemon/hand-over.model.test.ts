// A daemon that is killed again and again, at any moment of whatever guest, VMM and operator do, is not noticed: no
// page that the guest may use is discarded, no message is lost or answered twice, nothing waits for ever, and what is
// in the balloon is discarded in the end. MODEL_SEED=N replays what seed N did, as far as the kills go along;
// MODEL_SECONDS=N goes on for that long (and TAP_TIMEOUT=N still longer).
import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ControlClient, UnreachableError } from '../../src/control/client.js';
import { DaemonProcess } from '../support/daemon.js';
import { ModelGuest, type ModelControl } from '../support/model-guest.js';
import { scenario, type Scenario } from '../support/model-scenario.js';
import { eventually } from '../support/deadline.js';

const SECONDS = Number(process.env['MODEL_SECONDS'] ?? 8);
const SEED = Number(process.env['MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** After the daemon serves again. */
const KILL_WITHIN_MS = 300;

/** A client that asks again while no daemon answers. */
function patient(control: ControlClient): ModelControl & Pick<ControlClient, 'list'> {
  const patiently = async <T>(ask: () => Promise<T>): Promise<T> => {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (!(error instanceof UnreachableError)) throw error;
        await sleep(5);
      }
    }
  };
  return {
    inhibit: (vm, reason) => patiently(() => control.inhibit(vm, reason)),
    allow: (vm) => patiently(() => control.allow(vm)),
    show: (vm) => patiently(() => control.show(vm)),
    list: () => patiently(() => control.list()),
  };
}

async function play(
  daemon: DaemonProcess,
  { steps, settles, memorySlots, mustTellHost }: Scenario,
): Promise<void> {
  const control = patient(new ControlClient(daemon.controlPath));
  const guest = await ModelGuest.start(daemon.socketPath, control, 'model', { memorySlots, mustTellHost });
  try {
    for (const [n, step] of steps.entries()) {
      try {
        await guest.perform(step);
        guest.check();
      } catch (error) {
        throw new Error(`step ${n}, ${step.kind}: ${String(error)}`, { cause: error });
      }
    }
    if (settles) await guest.perform({ kind: 'settle' });
    await guest.end(async () => {
      await eventually(
        async () => (await control.list()).length === 0,
        () => 'the daemon lets go of the VM of a closed connection',
        5,
      );
    });
  } finally {
    guest.close();
  }
}

void t.test('killed at any moment', async (t) => {
  t.comment(`MODEL_SEED=${SEED}`);
  const daemon = await DaemonProcess.start({
    supervise: true,
    config: '[[socket]]\npath = "{folder}/vhost.sock"\nname = "model"\n',
  });
  t.teardown(() => daemon.stop());
  const end = performance.now() + SECONDS * 1000;
  let kills = 0;
  let runs = 0;
  const over = new AbortController();
  const killing = (async () => {
    for (;;) {
      await sleep(Math.random() * KILL_WITHIN_MS);
      if (over.signal.aborted) return;
      await daemon.crash();
      kills++;
    }
  })();
  try {
    await fc.assert(
      fc.asyncProperty(scenario, async (scenario) => {
        if (performance.now() > end) return;
        runs++;
        await play(daemon, scenario);
      }),
      { seed: SEED, numRuns: 100 * SECONDS, endOnFailure: true, includeErrorInReport: true },
    );
  } catch (error) {
    throw new Error(`${String(error)}\n${daemon.log.slice(-3000)}`, { cause: error });
  } finally {
    over.abort();
    await killing;
  }
  t.comment(`${runs} VMs, ${kills} kills`);
  t.ok(runs > 0 && kills > 0);
  t.notMatch(daemon.log, /resume-failed|hand-over-failed|vm-dropped/);
});
