import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonProcess } from '../test/support/daemon.js';
import type { CrowdPart } from './crowd.js';
import { Player } from './player.js';
import { cpuSeconds } from './process-cost.js';
import { median, percentile, report, type Row } from './table.js';

/**
 * What it costs to be looked at: how long a scrape takes and how long it keeps the event loop from guests, and what the
 * daemon takes while pages show its VMs live, beside what it takes without.
 */
const { values: wanted } = parseArgs({ options: { vms: { type: 'string', default: '100,1000' } } });
const SCRAPES = 30;
/** So many as one process has file descriptors for. */
const VMS_PER_PROCESS = 250;
const SETTLE_SECONDS = 15;
const WATCH_SECONDS = 30;

async function cpuPercent(pid: number): Promise<number> {
  const before = cpuSeconds(pid);
  await pause(WATCH_SECONDS * 1000);
  return ((cpuSeconds(pid) - before) / WATCH_SECONDS) * 100;
}

async function measure(vms: number): Promise<Row> {
  const daemon = await DaemonProcess.start({ metrics: true });
  const players: Player<CrowdPart>[] = [];
  try {
    for (let left = vms; left > 0; left -= VMS_PER_PROCESS) {
      const player = new Player<CrowdPart>('crowd.js');
      players.push(player);
      await player.ask('connect', {
        socketPath: daemon.socketPath,
        vms: Math.min(left, VMS_PER_PROCESS),
        mib: 1,
      });
    }
    await pause(SETTLE_SECONDS * 1000);
    const millis: number[] = [];
    const pauses: number[] = [];
    let bytes = 0;
    let lines = 0;
    for (let n = 0; n < SCRAPES; n++) {
      let done = false;
      // Others' requests while it is written: they wait as guests' kicks do.
      const asking = (async (): Promise<void> => {
        while (!done) {
          const asked = performance.now();
          await (await fetch(`${daemon.metricsUrl}/healthz`)).text();
          pauses.push(performance.now() - asked);
        }
      })();
      const start = performance.now();
      const text = await (await fetch(`${daemon.metricsUrl}/metrics`)).text();
      millis.push(performance.now() - start);
      done = true;
      await asking;
      bytes = text.length;
      lines = text.split('\n').length;
    }
    const unwatched = await cpuPercent(daemon.pid);
    const page = new AbortController();
    const stream = await fetch(`${daemon.metricsUrl}/live`, { signal: page.signal });
    const reading = (async (): Promise<void> => {
      try {
        for await (const chunk of stream.body ?? []) void chunk;
      } catch {
        // Aborted below.
      }
    })();
    await pause(5000);
    const watched = await cpuPercent(daemon.pid);
    page.abort();
    await reading;
    return {
      VMs: vms,
      'scrape p50 ms': median(millis).toFixed(1),
      'p99 ms': percentile(millis, 99).toFixed(1),
      lines,
      MiB: (bytes / 2 ** 20).toFixed(2),
      'another request meanwhile p50 ms': median(pauses).toFixed(2),
      'p99 ms ': percentile(pauses, 99).toFixed(2),
      'idle CPU %': unwatched.toFixed(2),
      'with a page CPU %': watched.toFixed(2),
    };
  } finally {
    for (const player of players) await player.stop();
    await daemon.stop();
  }
}

const rows: Row[] = [];
for (const count of wanted.vms.split(',')) rows.push(await measure(Number(count)));
report('scrape', rows);
