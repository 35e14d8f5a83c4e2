import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startMetricsServer } from '../src/control/metrics-server.js';
import { VmFleet } from '../src/daemon/fleet.js';
import { Listener } from '../src/daemon/listener.js';
import { EventLog } from '../src/ops/event-log.js';
import { HistoryMemory } from '../src/ops/history-memory.js';
import { NO_KEEPER } from '../src/os/fd-keeper.js';
import type { CrowdPart } from './crowd.js';
import { Player } from './player.js';
import { median, percentile, report, type Row } from './table.js';

/**
 * What it costs to be looked at: how long a scrape takes, for how long it keeps the event loop from guests, and what CPU
 * a page that shows all VMs live takes beside what is taken without. Nobody looks for files that pin memory: a few
 * processes play all VMs here, and have so many files open that this would be what is measured.
 */
const { values: wanted } = parseArgs({ options: { vms: { type: 'string', default: '100,1000' } } });
const SCRAPES = 30;
const SETTLE_MS = 5000;
const WATCH_SECONDS = 20;
/** So many as one process has file descriptors for. */
const VMS_PER_PROCESS = 50;
const NEVER_MS = 1e9;
const silent = { debug: nothing, info: nothing, warn: nothing, error: nothing };

function nothing(): void {
  return;
}

async function cpuPercent(): Promise<number> {
  const before = process.cpuUsage();
  await pause(WATCH_SECONDS * 1000);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e4 / WATCH_SECONDS;
}

/** The longest that the event loop had no moment for others until `work` is done. */
async function longestTurn(work: Promise<unknown>): Promise<number> {
  const state = { done: false };
  void work.finally(() => (state.done = true));
  let longest = 0;
  for (let last = performance.now(); !state.done;) {
    await new Promise((resolve) => setImmediate(resolve));
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }
  return longest;
}

async function measure(vms: number): Promise<Row> {
  const events = new EventLog(silent);
  const fleet = new VmFleet({}, events, NO_KEEPER, { pinCheckMs: NEVER_MS });
  const folder = mkdtempSync(join(tmpdir(), 'balloond-'));
  const path = join(folder, 'vhost.sock');
  const socket = { path, 'stats-interval': 0 };
  const listener = new Listener({ path }, NO_KEEPER, (fd) => fleet.adopt(fd, socket), console.error);
  const players: Player<CrowdPart>[] = [];
  for (let left = vms; left > 0; left -= VMS_PER_PROCESS) {
    const player = new Player<CrowdPart>('crowd.js');
    players.push(player);
    await player.ask('connect', { socketPath: path, vms: Math.min(left, VMS_PER_PROCESS), mib: 1 });
  }
  const { address, close } = await startMetricsServer(
    { host: '127.0.0.1', port: 0 },
    { fleet: fleet.control, history: HistoryMemory.create() },
    events,
    {},
  );
  const url = `http://127.0.0.1:${address.port}`;
  await pause(SETTLE_MS);

  const millis: number[] = [];
  const turns: number[] = [];
  let text = '';
  for (let n = 0; n < SCRAPES; n++) {
    const start = performance.now();
    text = await (await fetch(`${url}/metrics`)).text();
    millis.push(performance.now() - start);
    turns.push(await longestTurn(fleet.control.metrics()));
  }
  const unwatched = await cpuPercent();
  const page = new AbortController();
  const stream = await fetch(`${url}/live`, { signal: page.signal });
  const reading = stream.body?.pipeTo(new WritableStream()).catch(nothing);
  await pause(SETTLE_MS);
  const watched = await cpuPercent();
  page.abort();
  await reading;
  await close();
  for (const player of players) await player.stop();
  listener.close();
  fleet.close();
  rmSync(folder, { recursive: true });
  return {
    VMs: vms,
    'scrape p50 ms': median(millis).toFixed(1),
    'p99 ms': percentile(millis, 99).toFixed(1),
    'longest turn p50 ms': median(turns).toFixed(2),
    lines: text.split('\n').length,
    MiB: (text.length / 2 ** 20).toFixed(2),
    'CPU % unwatched': unwatched.toFixed(2),
    'with a page': watched.toFixed(2),
  };
}

const rows: Row[] = [];
for (const count of wanted.vms.split(',')) rows.push(await measure(Number(count)));
report('scrape', rows);
process.exit(0);
