import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlClient } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { kicks, patterns } from './patterns.js';
import { cpuSeconds, residentMib } from './process-cost.js';
import { FIRST_PFN, RawDriver } from './raw-driver.js';
import { percentile, report, type Row } from './table.js';

/**
 * What VMs cost each other and the host: how long one waits for its ack while others give memory up and take it back
 * as fast as they can, and what 1 to 1,000 VMs cost the daemon at rest and at work. The VMs are test frontends in
 * processes of their own.
 */
const VMS_PER_PROCESS = 250;
const SAMPLES = 1500;
/** Between two kicks of the one that is measured: it must not be what keeps a core busy. */
const PAUSE_MS = 2;
const CROWDS = [1, 10, 100, 1000];
const CROWD_MIB = 1024;
const SETTLE_SECONDS = 15;
const IDLE_SECONDS = 20;

async function crowd(socketPath: string, count: number, mib: number, pattern: string): Promise<ChildProcess> {
  const script = fileURLToPath(new URL('crowd.js', import.meta.url));
  const child = fork(script, [socketPath, `${count}`, `${mib}`, pattern]);
  await said(child, 'ready');
  return child;
}

async function said(child: ChildProcess, word: string): Promise<void> {
  for (;;) {
    const [message] = (await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(([code]) => {
        throw new Error(`a crowd ended with ${String(code)} before it was ${word}`);
      }),
    ])) as [unknown];
    if (message === word) return;
  }
}

async function waits(others: number, pattern: string): Promise<Row> {
  const daemon = await DaemonProcess.start();
  const mib = 64;
  const driver = await RawDriver.start({ socketPath: daemon.socketPath, mib });
  const child = others > 0 ? await crowd(daemon.socketPath, others, 128, pattern) : null;
  child?.send('churn');
  const [sequential] = patterns(FIRST_PFN, (mib * 2 ** 20) / 4096);
  const buffers = sequential === undefined ? [] : [...kicks(sequential)];
  const micros: number[] = [];
  for (let n = -SAMPLES / 3; n < SAMPLES; n++) {
    const buffer = buffers[(n + SAMPLES) % buffers.length];
    if (buffer === undefined) continue;
    await sleep(PAUSE_MS);
    const took = driver.inflate(buffer);
    if (n >= 0) micros.push(took);
    driver.deflate(buffer);
  }
  child?.kill('SIGKILL');
  driver.close();
  await daemon.stop();
  return {
    'VMs that churn': others === 0 ? 'none' : `${others}, ${pattern}`,
    'p50 µs': percentile(micros, 50).toFixed(0),
    'p99 µs': percentile(micros, 99).toFixed(0),
    'max µs': Math.max(...micros).toFixed(0),
  };
}

async function costs(vms: number): Promise<Row> {
  const daemon = await DaemonProcess.start();
  await sleep(SETTLE_SECONDS * 1000);
  const aloneMib = residentMib(daemon.pid);
  const mib = Math.max(1, Math.floor(CROWD_MIB / vms));
  const started = performance.now();
  const children: ChildProcess[] = [];
  for (let left = vms; left > 0; left -= VMS_PER_PROCESS) {
    children.push(await crowd(daemon.socketPath, Math.min(left, VMS_PER_PROCESS), mib, 'sequential'));
  }
  const connectSeconds = (performance.now() - started) / 1000;
  await sleep(SETTLE_SECONDS * 1000);
  const cpuBefore = cpuSeconds(daemon.pid);
  await sleep(IDLE_SECONDS * 1000);
  const cpuPercent = ((cpuSeconds(daemon.pid) - cpuBefore) / IDLE_SECONDS) * 100;
  const residentKib = ((residentMib(daemon.pid) - aloneMib) * 1024) / vms;

  const tell = async (order: string, answer: string): Promise<void> => {
    const answers = Promise.all(children.map((child) => said(child, answer)));
    for (const child of children) child.send(order);
    await answers;
  };
  await tell('populate', 'populated');
  const work = cpuSeconds(daemon.pid);
  const begun = performance.now();
  await tell('inflate', 'inflated');
  const client = new ControlClient(daemon.controlPath);
  while ((await client.list()).some(({ balloon }) => balloon.pendingBytes > 0)) await sleep(5);
  const seconds = (performance.now() - begun) / 1000;
  const gib = (vms * mib) / 1024;
  const worked = cpuSeconds(daemon.pid) - work;
  for (const child of children) child.kill('SIGKILL');
  await daemon.stop();
  return {
    VMs: vms,
    'connect s': connectSeconds.toFixed(1),
    'resident KiB each': residentKib.toFixed(0),
    'idle CPU % of a core': cpuPercent.toFixed(2),
    'all inflate GiB/s': (gib / seconds).toFixed(2),
    'CPU s/GiB': (worked / gib).toFixed(2),
  };
}

const latencies: Row[] = [];
for (const [others, pattern] of [
  [0, ''],
  [1, 'sequential'],
  [1, 'scattered'],
  [10, 'scattered'],
] as const) {
  latencies.push(await waits(others, pattern));
}
report('neighbours-latency', latencies);
const rows: Row[] = [];
for (const vms of CROWDS) rows.push(await costs(vms));
report('neighbours-cost', rows);
