// What becomes of a VM whose guest does not yield, in one program, as each takes long to start in the host VM:
// `force.js CONTROL VM COMMAND OTHER BYTES FILE` runs COMMAND, waits until the memory.high of the VM was lowered three times and
// memory.max is set, gives the balloon of OTHER so many bytes, waits until VM is released, and prints a ForceReport. Meanwhile FILE
// gets longer grace times, so that a slow machine does in time all that is to be done within one.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DaemonEvent, VmView } from '../../../protocol/control/schema.js';
import { ControlClient } from '../../../src/control/client.js';
import { Cgroup, type Limit } from '../../../src/host/cgroup.js';

const LOOK_MS = 10;
const HIGH_STEPS = 3;
/** Until memory.max, in which this program has to see it and to reload FILE. */
const MAX_GRACE_SECONDS = 20;
/** After memory.max, in which OTHER has to give its memory: else the VM would have withstood. */
const LAST_GRACE_SECONDS = 150;
/** Less than the host VM waits for a command, so that this program says how far it came. */
const TIMEOUT_MS = 540_000;

export interface ForceReport {
  /** What the kernel had, each time that it was something else. */
  steps: { highBytes: Limit; maxBytes: Limit; currentBytes: number }[];
  /** How often the pressure trigger of the cgroup fired. */
  triggered: number;
  oomKills: number;
  /** The most that was charged at any time. */
  peakBytes: number;
  events: DaemonEvent[];
  vm: VmView;
}

const [, , control = '', name = '', command = '', other = '', bytes = '', configFile = ''] = process.argv;
const client = new ControlClient(control);
const { cgroup: found } = await client.show(name);
const cgroup = new Cgroup(found?.path ?? '/');
const steps: ForceReport['steps'] = [];
let triggered = 0;
const trigger = cgroup.watchPressure(() => triggered++);
const deadline = performance.now() + TIMEOUT_MS;

async function watch(until: (limits: ForceReport['steps'][number]) => boolean): Promise<void> {
  while (performance.now() < deadline) {
    const now = cgroup.limits();
    if (now === null) throw new Error('it is gone');
    const last = steps.at(-1);
    if (last === undefined || last.highBytes !== now.highBytes || last.maxBytes !== now.maxBytes) {
      steps.push(now);
    }
    if (until(now)) return;
    await sleep(LOOK_MS);
  }
  throw new Error(`never: ${JSON.stringify([steps, triggered, await client.events()])}`);
}

async function forceAfter(seconds: number): Promise<void> {
  const file = readFileSync(configFile, 'utf8');
  writeFileSync(configFile, file.replace(/^force-grace.*/m, `force-grace = ${seconds}`));
  await client.reload();
}

spawn('sh', ['-ec', command], { stdio: ['ignore', 'ignore', 'inherit'] });
await watch(() => steps.filter(({ highBytes }) => highBytes !== null).length >= HIGH_STEPS);
await forceAfter(MAX_GRACE_SECONDS);
await watch(({ maxBytes }) => maxBytes !== null);
await forceAfter(LAST_GRACE_SECONDS);
await client.setTarget(other, { balloonBytes: Number(bytes) });
await watch(({ highBytes, maxBytes }) => highBytes === null && maxBytes === null);
trigger.close();
/** What the cgroup counts and the daemon has no use for. */
const file = (name: string): string => readFileSync(join(cgroup.folder, name), 'latin1');
const report: ForceReport = {
  steps,
  triggered,
  oomKills: Number(/^oom_kill (\d+)$/m.exec(file('memory.events'))?.[1] ?? NaN),
  peakBytes: Number(file('memory.peak')),
  events: await client.events(),
  vm: await client.show(name),
};
process.stdout.write(JSON.stringify(report));
