/**
 * VMs with QEMU's own balloon that the daemon adopts, each a real QEMU whose guest never starts: what many of them cost the daemon at
 * rest, and how long the commands of the others take beside one VMM that is stopped (SIGSTOP) and beside none, by turns.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ControlClient } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { ensureLab } from '../test/support/lab/lab.js';
import { cpuSeconds } from './process-cost.js';
import { median, percentile, report } from './table.js';

const MIB = 2 ** 20;
const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"

[[qmp]]
path = "{folder}/*.qmp"
`;
const STARTED_TOGETHER = 10;
const SETTLE_MS = 30_000;
const REST_MS = 60_000;
const ROUNDS = 6;
const COMMANDS_A_ROUND = 200;

const { vms } = parseArgs({ options: { vms: { type: 'string', default: '200' } } }).values;
const count = Number(vms);
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

/** Bytes of the daemon alone (Private_* and Pss of /proc/PID/smaps_rollup say the same of what nobody shares). */
function privateBytes(): number {
  const text = readFileSync(`/proc/${daemon.pid}/smaps_rollup`, 'latin1');
  return [...text.matchAll(/^Private_\w+:\s+(\d+) kB$/gm)].reduce(
    (sum, [, kib]) => sum + Number(kib) * 1024,
    0,
  );
}

async function settled(): Promise<{ bytes: number; cpuPercent: number }> {
  await sleep(SETTLE_MS);
  const before = cpuSeconds(daemon.pid);
  await sleep(REST_MS);
  return { bytes: privateBytes(), cpuPercent: ((cpuSeconds(daemon.pid) - before) / REST_MS) * 1e5 };
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
  for (let first = 0; first < count; first += STARTED_TOGETHER) {
    const names = Array.from({ length: STARTED_TOGETHER }, (_, n) => `vm-${first + n}`).slice(
      0,
      count - first,
    );
    vmms.push(...names.map(start));
    while (!names.every((name) => existsSync(join(daemon.folder, `${name}.qmp`)))) await sleep(20);
  }
  while ((await daemon.list()).length < count) await sleep(200);
  const all = await settled();
  const client = new ControlClient(daemon.controlPath);
  const times: Record<'beside' | 'without', number[]> = { beside: [], without: [] };
  for (let round = 0; round < ROUNDS; round++) {
    const dead = round % 2 === 0;
    vmms[0]?.kill(dead ? 'SIGSTOP' : 'SIGCONT');
    if (dead) void client.setTarget('vm-0', { balloonBytes: (round + 1) * MIB }).catch(() => undefined);
    times[dead ? 'beside' : 'without'].push(...(await commands(client, round)));
  }
  vmms[0]?.kill('SIGCONT');
  const p99 = { beside: percentile(times.beside, 99), without: percentile(times.without, 99) };
  report('adopted', [
    {
      VMs: count,
      'CPU % of a core, at rest': all.cpuPercent.toFixed(2),
      'without any': alone.cpuPercent.toFixed(2),
      'KiB for each VM': ((all.bytes - alone.bytes) / count / 1024).toFixed(1),
      'daemon alone MiB': (alone.bytes / MIB).toFixed(1),
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
