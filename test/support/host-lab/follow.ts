// What an operator does with limits that follow, in one program, as each takes long to start in the host VM:
// `follow.js CONTROL VM` prints a FollowReport.
import { setTimeout as sleep } from 'node:timers/promises';
import type { DaemonEvent, VmView } from '../../../protocol/control/schema.js';
import { ControlClient } from '../../../src/control/client.js';

const MIB = 2 ** 20;

export interface FollowReport {
  /** Of a limit that would kill the VM. */
  refusal: string;
  /** With most of it in the balloon, and after it was deflated. */
  lowest: VmView;
  view: VmView;
  events: DaemonEvent[];
}

const [, , control = '', name = ''] = process.argv;
const client = new ControlClient(control);

async function until(condition: (vm: VmView) => boolean): Promise<VmView> {
  for (;;) {
    const vm = await client.show(name);
    if (condition(vm)) return vm;
    await sleep(100);
  }
}

const refusal = await client.setLimits(name, { max: MIB }).then(() => 'none', String);
const before = (await client.setLimits(name, { high: 'follow', max: 'follow' })).cgroup?.highBytes ?? 0;
await client.setTarget(name, { balloonBytes: 48 * MIB });
const lowest = await until(
  ({ limits, cgroup }) => limits.mayUseBytes === 16 * MIB && (cgroup?.highBytes ?? before) < before,
);
await client.setTarget(name, { balloonBytes: 16 * MIB });
const view = await until(({ balloon }) => balloon.actualBytes === 16 * MIB);
const events = await client.events();
const report: FollowReport = { refusal, lowest, view, events };
process.stdout.write(JSON.stringify(report));
