// Three Linux guests in three bands on a part of this host's memory that is 60 % of what they want. The guests are a
// database (gold) that grows and cannot swap, a web server (silver) that can, and a batch job (bronze) that reads the
// same data over and over. With BALLOOND_LONG_TESTS the constant load that follows lasts three minutes.
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { TraceLine, TraceVm } from '../../protocol/policy-trace.js';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import type { DaemonProcess } from '../support/daemon.js';
import type { Guest } from '../support/lab/guest.js';

t.setTimeout(0);

const LONG = process.env['BALLOOND_LONG_TESTS'] === '1';
const RAM_MIB = 384;
/** What a guest takes up that does nothing. */
const SYSTEM_MIB = 75;
const WORK_MIB = { 'db-1': 160, 'web-1': 200, 'batch-1': 240 } as const;
type Name = keyof typeof WORK_MIB;
const NAMES = Object.keys(WORK_MIB) as Name[];
const WANTED_MIB = NAMES.reduce((sum, name) => sum + SYSTEM_MIB + WORK_MIB[name], 0);
const MEMORY_MIB = Math.round(0.6 * WANTED_MIB);
const INTERVAL_SECONDS = LONG ? 1 : 0.5;
/** What a guest grows by between two looks of the policy: the reserve is there for that. */
const STEP_MIB = 20;
/** Of what it may use: a guest that has less left is short (src/policy/plan.ts). */
const SHORT_SHARE = 0.04;
/** How long everybody does the same over and over, after a while in which targets settle. */
const SETTLE_SECONDS = LONG ? 60 : 2;
const REST_SECONDS = LONG ? 180 : 4;

const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"
stats-interval = ${INTERVAL_SECONDS}

[policy]
mode = "auto"
memory = "${MEMORY_MIB}M"
interval = ${INTERVAL_SECONDS}
record = "{folder}/trace.ndjson"

[[policy.band]]
name = "gold"
match = ["db-*"]
min = "40%"

[[policy.band]]
name = "silver"
match = ["web-*"]
min = "25%"

[[policy.band]]
name = "bronze"
match = ["batch-*"]
min = "25%"
`;

async function ok(guest: Guest, command: string): Promise<void> {
  const { code, output } = await guest.sh(command);
  if (code !== 0) throw new Error(`${guest.name}: ${command} ended with ${code}: ${output}`);
}

async function bootAll(t: Test, daemon: DaemonProcess): Promise<Record<Name, Guest>> {
  const swap = join(daemon.folder, 'swap');
  writeFileSync(swap, '');
  truncateSync(swap, RAM_MIB * MIB);
  const disks: Record<Name, string | null> = {
    'db-1': null,
    'web-1': `driver=raw,cache=unsafe,file=${swap}`,
    'batch-1': `driver=null-co,size=${RAM_MIB}M,read-zeroes=on`,
  };
  const booted = NAMES.map(async (name) => {
    const disk = disks[name];
    const extraArgs =
      disk === null ? [] : ['-drive', `if=none,id=disk,${disk}`, '-device', 'nvme,drive=disk,serial=disk'];
    return [name, await boot(t, daemon, name, { memoryMib: RAM_MIB, extraArgs })] as const;
  });
  return Object.fromEntries(await Promise.all(booted)) as Record<Name, Guest>;
}

/** What the policy saw at each look so far. */
function trace(daemon: DaemonProcess): TraceLine[] {
  const lines = readFileSync(join(daemon.folder, 'trace.ndjson'), 'utf8').split('\n').slice(0, -1);
  const all = lines.map((line) => JSON.parse(line) as TraceLine);
  return all.filter(({ vms }) => vms.length === NAMES.length);
}

function of(line: TraceLine, name: Name): TraceVm {
  const found = line.vms.find((vm) => vm.name === name);
  if (found === undefined) throw new Error(`no ${name} at ${line.t}`);
  return found;
}

function isShort({ ramBytes, actualBytes, targetBytes, guestAvailableBytes }: TraceVm): boolean {
  const share = (guestAvailableBytes ?? Infinity) / (ramBytes - actualBytes);
  return targetBytes > 0 && share < SHORT_SHARE;
}

function longestRun(values: readonly boolean[]): number {
  let longest = 0;
  let run = 0;
  for (const value of values) longest = Math.max(longest, (run = value ? run + 1 : 0));
  return longest;
}

/** Takes so much more, for good, about a step between two looks. */
async function grow(guest: Guest, mib: number): Promise<void> {
  for (let left = mib; left > 0; left -= STEP_MIB) {
    await ok(guest, `dd if=/dev/zero bs=1M count=${Math.min(left, STEP_MIB)} 2>/dev/null >>/work/data`);
    await sleep(INTERVAL_SECONDS * 500);
  }
}

/** Reads its data over and over: fast at first, then about a step between two looks. */
async function readOn(guest: Guest): Promise<void> {
  const dd = `dd if=/dev/nvme0n1 of=/dev/null bs=1M`;
  const last = WORK_MIB['batch-1'] - STEP_MIB;
  // Open all the time: its page cache goes with the last who has it open.
  const work = `exec 3</dev/nvme0n1; ${dd} count=${WORK_MIB['batch-1']}
    while true; do
      for skip in $(seq 0 ${STEP_MIB} ${last}); do ${dd} count=${STEP_MIB} skip=$skip; sleep ${INTERVAL_SECONDS}; done
    done`;
  await ok(guest, `(${work}) >/dev/null 2>&1 &`);
}

void t.test(
  'bronze yields first, gold has what it wants, nobody is killed, and it comes to rest',
  async (t) => {
    const daemon = await startDaemon(t, { config: CONFIG });
    const guests = await bootAll(t, daemon);
    const { 'db-1': gold, 'web-1': silver, 'batch-1': bronze } = guests;
    for (const guest of [gold, silver])
      await ok(guest, 'mkdir /work && mount -t tmpfs -o size=100% none /work');
    await ok(silver, 'mkswap /dev/nvme0n1 && swapon /dev/nvme0n1');
    await bronze.hold(8, 1);
    await readOn(bronze);
    await daemon.until('batch-1', ({ balloon }) => balloon.targetBytes > 0, 'bronze is to yield');
    await grow(silver, WORK_MIB['web-1']);
    await grow(gold, WORK_MIB['db-1']);
    const constantLoad = async (seconds: number): Promise<void> => {
      for (let second = 0; second < seconds; second++) {
        await ok(gold, 'cat /work/data >/dev/null');
        await sleep(1000);
      }
    };
    await constantLoad(SETTLE_SECONDS);
    const settled = trace(daemon).length;
    await constantLoad(REST_SECONDS);
    const lines = trace(daemon);
    const events = (await daemon.events()).filter(({ event }) => event.startsWith('policy-'));
    for (const { time, message } of events) t.comment(`${time} ${message}`);
    for (const name of NAMES) t.comment(await daemon.ok('policy', 'explain', name));

    const took = events.filter(({ event }) => event === 'policy-took').map(({ vm }) => vm);
    t.equal(took[0], 'batch-1', 'bronze yields first');
    t.ok(took.includes('web-1'), 'then silver, as bronze has little more than its floor');
    t.notOk(took.includes('db-1'), 'gold is asked for nothing');
    const waited = longestRun(lines.map((line) => isShort(of(line, 'db-1'))));
    t.ok(waited * INTERVAL_SECONDS <= 5, `gold was short for ${waited} looks in a row at most`);
    const size = await gold.sh('wc -c </work/data');
    t.equal(Number(size.output), WORK_MIB['db-1'] * MIB, 'and has all that it wants');
    const least = Math.min(...lines.map(({ availableBytes }) => availableBytes));
    t.ok(least > 0, `at least ${Math.round(least / MIB)} MiB of ${MEMORY_MIB} were left`);
    for (const { name } of Object.values(guests)) {
      t.equal((await daemon.stats(name))['VIRTIO_BALLOON_S_OOM_KILL'], 0, `${name}: nothing was killed`);
      const { ramBytes, balloon, policy } = await daemon.show(name);
      t.ok(ramBytes - balloon.targetBytes >= (policy?.minBytes ?? Infinity), `${name} keeps its floor`);
    }
    t.equal(await bronze.verify(), 0, 'what a guest holds stays as it was');
    for (const name of NAMES) {
      const targets = lines.slice(settled - 1).map((line) => of(line, name).targetBytes);
      const changes = targets.filter((target, n) => n > 0 && target !== targets[n - 1]).length;
      t.ok(
        changes <= Math.max(1, REST_SECONDS / 60),
        `${name}: ${changes} targets in ${REST_SECONDS} s at rest`,
      );
    }
    const replayed = await daemon.ok('policy', 'simulate', '--trace', join(daemon.folder, 'trace.ndjson'));
    t.comment(replayed);
    t.match(replayed, /^policy .*\nballoond .*\n/, 'what the daemon recorded can be played to the simulator');
    t.match(
      await daemon.ok('policy', 'explain', 'batch-1'),
      /^batch-1 \(bronze, 96 MiB to 384 MiB\): auto\n\S+Z took \S+ MiB from batch-1 \(bronze\): .*available to VMs \d+ %.*\nnow: /,
    );
  },
);
