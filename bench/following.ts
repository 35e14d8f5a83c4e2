import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { VmFleet } from '../src/daemon/fleet.js';
import { Listener } from '../src/daemon/listener.js';
import { EventLog } from '../src/ops/event-log.js';
import { NO_KEEPER } from '../src/os/fd-keeper.js';
import type { FollowersPart } from './followers.js';
import { Player } from './player.js';
import { report, type Row } from './table.js';

/**
 * What VMs at rest cost where their balloons follow their working sets, beside VMs whose balloons do not: the CPU of the
 * process that serves them, and how often guests are asked for statistics. Nobody looks for files that pin memory: a few
 * processes play all VMs here, and have so many files open that this would be what is measured.
 */
const { values: wanted } = parseArgs({ options: { vms: { type: 'string', default: '1000' } } });
const WATCH_SECONDS = 60;
/** After that time a guest at rest is asked twice a minute. */
const SETTLE_SECONDS = 150;
const VMS_PER_PROCESS = 50;
const MIB_PER_VM = 96;
const USED_MIB = 48;
const NEVER_MS = 1e9;
const SIZES = ['on-demand', 'working-set'] as const;
const silent = { debug: nothing, info: nothing, warn: nothing, error: nothing };

function nothing(): void {
  return;
}

async function measure(size: (typeof SIZES)[number], vms: number): Promise<Row> {
  const config = { policy: { mode: 'auto' as const, band: [{ name: 'all', min: '5%', size }] } };
  const events = new EventLog(silent);
  const fleet = new VmFleet(config, events, NO_KEEPER, { pinCheckMs: NEVER_MS });
  const folder = mkdtempSync(join(tmpdir(), 'balloond-'));
  const path = join(folder, 'vhost.sock');
  const socket = { path, 'stats-interval': 0 };
  const listener = new Listener({ path }, NO_KEEPER, (fd) => fleet.adopt(fd, socket), console.error);
  const players: Player<FollowersPart>[] = [];
  const state = async (): Promise<{ pages: number; asked: number }> => {
    const all = { pages: 0, asked: 0 };
    for (const player of players) {
      const { pages, asked } = await player.ask('state', null);
      all.pages += pages;
      all.asked += asked;
    }
    return all;
  };
  for (let left = vms; left > 0; left -= VMS_PER_PROCESS) {
    const player = new Player<FollowersPart>('followers.js');
    players.push(player);
    const options = { vms: Math.min(left, VMS_PER_PROCESS), mib: MIB_PER_VM, usedMib: USED_MIB };
    await player.ask('connect', { socketPath: path, ...options });
  }
  fleet.startPolicy();
  await pause(SETTLE_SECONDS * 1000);
  const { asked: askedBefore } = await state();
  const before = process.cpuUsage();
  await pause(WATCH_SECONDS * 1000);
  const { user, system } = process.cpuUsage(before);
  const { asked, pages } = await state();
  for (const player of players) await player.stop();
  listener.close();
  fleet.close();
  rmSync(folder, { recursive: true });
  return {
    size,
    VMs: vms,
    'CPU % of a core': ((user + system) / 1e4 / WATCH_SECONDS).toFixed(2),
    'statistics a VM and minute': (((asked - askedBefore) / vms / WATCH_SECONDS) * 60).toFixed(1),
    'MiB in each balloon': ((pages * 4096) / vms / 2 ** 20).toFixed(1),
  };
}

const rows: Row[] = [];
for (const count of wanted.vms.split(','))
  for (const size of SIZES) rows.push(await measure(size, Number(count)));
report('following', rows);
process.exit(0);
