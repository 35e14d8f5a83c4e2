/**
 * VMs with QEMU's own balloon that the daemon adopts, each a real QEMU whose guest never starts: what many of them cost the daemon at
 * rest, and how long the commands of the others take beside one VMM that is stopped (SIGSTOP) and beside none, by turns. Memory is
 * counted from the first VM on, and beyond those that are adopted before anything is counted, with which code and heap have grown to
 * what they are.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ControlClient } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { ensureLab } from '../test/support/lab/lab.js';
import { busyPercent, memoryKib } from './process-cost.js';
import { median, percentile, report } from './table.js';

const MIB = 2 ** 20;
const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"

[[qmp]]
path = "{folder}/*.qmp"
`;
const STARTED_TOGETHER = 10;
const SETTLE_MS = 30_000;
const REST_SECONDS = 60;
/** A round beside a VMM that is stopped, and one beside none: the order is turned around each time. */
const ROUNDS = Array.from({ length: 32 }, (_, n) => n % 4 === 0 || n % 4 === 3);
const COMMANDS_A_ROUND = 250;

const { vms } = parseArgs({ options: { vms: { type: 'string', default: '200' } } }).values;
const count = Number(vms);
/** Adopted before memory is counted. */
const warmVms = Math.min(20, Math.floor(count / 2));
const { qemu } = await ensureLab();
const daemon = await DaemonProcess.start({ config: CONFIG });
const vmms: ChildProcess[] = [];

function start(name: string): ChildProcess {
  return spawn(qemu, [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-S', '-run-with', 'exit-with-parent=on'],
    ...['-name', `guest=${name}`, '-accel', 'tcg,tb-size=1', '-machine', 'pc', '-m', '64M'],
    ...['-device', 'virtio-balloon-pci,id=balloon0'],
    ...['-qmp', `unix:${join(daemon.folder, `${name}.qmp`)},server=on,wait=off`],
  ]);
}

interface Cost {
  readonly kib: ReturnType<typeof memoryKib>;
  readonly cpuPercent: number;
}

async function settled(): Promise<Cost> {
  await sleep(SETTLE_MS);
  const cpuPercent = await busyPercent(daemon.pid, REST_SECONDS);
  return { kib: memoryKib(daemon.pid), cpuPercent };
}

/** Starts VMs until there are so many, and waits until all are adopted. */
async function adoptUpTo(wanted: number): Promise<void> {
  while (vmms.length < wanted) {
    const names = Array.from(
      { length: Math.min(STARTED_TOGETHER, wanted - vmms.length) },
      (_, n) => `vm-${vmms.length + n}`,
    );
    vmms.push(...names.map(start));
    while (!names.every((name) => existsSync(join(daemon.folder, `${name}.qmp`)))) await sleep(20);
  }
  // A list of all VMs would cost the daemon more than to adopt one of them.
  while (daemon.log.split('"event":"vm-connected"').length <= wanted) await sleep(200);
}

/** Milliseconds of commands to VMs that answer, one after the other. */
async function commands(client: ControlClient, round: number): Promise<number[]> {
  const times: number[] = [];
  for (let n = 0; n < COMMANDS_A_ROUND; n++) {
    const name = `vm-${1 + ((round * COMMANDS_A_ROUND + n) % (count - 1))}`;
    const begun = performance.now();
    await client.setTarget(name, { balloonBytes: (1 + (n % 8)) * MIB });
    times.push(performance.now() - begun);
  }
  return times;
}

try {
  const alone = await settled();
  await adoptUpTo(warmVms);
  const warm = await settled();
  await adoptUpTo(count);
  const all = await settled();
  const client = new ControlClient(daemon.controlPath);
  const times: Record<'beside' | 'without', number[]> = { beside: [], without: [] };
  // The first command to a VM takes longer, as do the first ones of all.
  for (let n = 1; n < count; n++) await client.setTarget(`vm-${n}`, { balloonBytes: 0 });
  for (const [round, dead] of ROUNDS.entries()) {
    vmms[0]?.kill(dead ? 'SIGSTOP' : 'SIGCONT');
    if (dead) void client.setTarget('vm-0', { balloonBytes: (round + 1) * MIB }).catch(() => undefined);
    times[dead ? 'beside' : 'without'].push(...(await commands(client, round)));
  }
  vmms[0]?.kill('SIGCONT');
  const each = (from: Cost, vms: number, kind: keyof Cost['kib']): string =>
    ((all.kib[kind] - from.kib[kind]) / (count - vms)).toFixed(1);
  const p99 = { beside: percentile(times.beside, 99), without: percentile(times.without, 99) };
  report('adopted', [
    {
      VMs: count,
      'CPU % of a core, at rest': all.cpuPercent.toFixed(2),
      'without any': alone.cpuPercent.toFixed(2),
      [`resident KiB for each VM beyond ${warmVms}`]: each(warm, warmVms, 'Rss'),
      'of it anonymous': each(warm, warmVms, 'Pss_Anon'),
      'anonymous KiB for each VM beyond none': each(alone, 0, 'Pss_Anon'),
      'daemon alone MiB, anonymous': (alone.kib.Pss_Anon / 1024).toFixed(1),
      'set, median ms': `${median(times.without).toFixed(2)}; beside one that is stopped ${median(times.beside).toFixed(2)}`,
      'p99 ms': `${p99.without.toFixed(2)}; ${p99.beside.toFixed(2)} (${(p99.beside / p99.without).toFixed(2)} times)`,
    },
  ]);
} finally {
  await Promise.all(
    vmms.map(async (vmm) => {
      const gone = once(vmm, 'exit');
      vmm.kill('SIGKILL');
      await gone;
    }),
  );
  await daemon.stop();
}
