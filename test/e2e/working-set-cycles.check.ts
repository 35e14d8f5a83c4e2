// Two real guests whose balloons follow their working sets grow and shrink a hundred times by eight kinds of work: no page of theirs is
// damaged, no result is another one, and their kernels end no program. CYCLES=N: so many cycles together, 100 by default.
import { createHash } from 'node:crypto';
import t from 'tap';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import type { DaemonProcess } from '../support/daemon.js';
import type { Guest } from '../support/lab/guest.js';
import { SIZED } from '../support/sized.js';

t.setTimeout(0);

const CYCLES = Number(process.env['CYCLES'] ?? 100);
const MEMORY_MIB = 1024;
const SLOW_MS = 240_000;
const DISK = '/dev/nvme0n1';
/** The balloon has so much of an idle guest before it grows again. */
const SHRUNK_BYTES = 600 * MIB;
const SIZES_MIB = [96, 512, 192, 384, 256, 448, 128];
const LINES = 400_000;

const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"
${SIZED}`;

async function run(guest: Guest, command: string): Promise<string> {
  const { code, output } = await guest.sh(command, SLOW_MS);
  if (code !== 0) throw new Error(`${guest.name}: ${command} ended with ${code}: ${output}`);
  return output.trim();
}

/** Takes that much memory, and throws where a page of it is not as it was written. */
async function hold(guest: Guest, mib: number, seed: number): Promise<void> {
  await guest.hold(mib, seed, SLOW_MS);
  await intact(guest);
}

async function intact(guest: Guest): Promise<void> {
  const damaged = await guest.verify(SLOW_MS);
  if (damaged > 0) throw new Error(`${guest.name}: ${damaged} pages are not as they were written`);
}

function read(guest: Guest, mib: number, skip: number): Promise<string> {
  return run(guest, `dd if=${DISK} of=/dev/null bs=1M skip=${skip} count=${mib} 2>&1`);
}

async function same(guest: Guest, command: string, expected: string): Promise<void> {
  const output = await run(guest, command);
  if (output !== expected) throw new Error(`${guest.name}: ${command} gave ${output}, not ${expected}`);
}

const SORTED = md5(Array.from({ length: LINES }, (_, n) => n));
function md5(numbers: readonly number[]): string {
  return createHash('md5')
    .update(numbers.map((n) => `${n + 1}\n`).join(''))
    .digest('hex');
}

const WORK: Readonly<Record<string, (guest: Guest, mib: number, seed: number) => Promise<void>>> = {
  'anonymous memory at once': hold,
  'anonymous memory that is renewed': async (guest, mib, seed) => {
    await hold(guest, mib, seed);
    if ((await guest.renew(mib / 2, seed + 1, SLOW_MS)) > 0) throw new Error(`${guest.name}: damaged pages`);
    await intact(guest);
  },
  'page cache that is read over and over': async (guest, mib) => {
    for (let n = 0; n < 4; n++) await read(guest, mib, 0);
  },
  'a disk that is read once': async (guest, mib) => {
    await read(guest, 2 * MEMORY_MIB, mib);
  },
  'anonymous memory beside a disk that is read once': async (guest, mib, seed) => {
    const dd = `dd if=${DISK} of=/dev/null bs=1M count=${MEMORY_MIB}`;
    await run(guest, `rm -f /read; (${dd}; touch /read) >/dev/null 2>&1 &`);
    await hold(guest, mib, seed);
    await run(guest, 'while ! [ -e /read ]; do sleep 0.2; done');
    await intact(guest);
  },
  'files in memory': async (guest, mib) => {
    await run(guest, `yes balloon | head -c ${mib * MIB} >/files/one`);
    const sum = await run(guest, 'md5sum </files/one');
    await same(guest, 'md5sum </files/one', sum);
    await run(guest, 'rm /files/one');
  },
  'a program that sorts': (guest) => same(guest, `seq ${LINES} | sort -r | sort -n | md5sum`, `${SORTED}  -`),
  'programs that come and go': async (guest, mib) => {
    for (let n = 0; n < 3; n++)
      if (!(await guest.eat(mib, SLOW_MS))) throw new Error(`${guest.name} ended a program`);
  },
};

async function cycles(daemon: DaemonProcess, guest: Guest, first: number): Promise<void> {
  const kinds = Object.entries(WORK);
  for (let n = 0; n < CYCLES / 2; n++) {
    const [kind, work] = kinds[(n + first) % kinds.length] ?? [];
    if (work === undefined) throw new Error('no work');
    const mib = SIZES_MIB[(n + first) % SIZES_MIB.length] ?? 0;
    await work(guest, mib, n + 1);
    await guest.drop();
    const shrunk = await daemon.until(
      guest.name,
      ({ balloon }) => balloon.actualBytes > SHRUNK_BYTES,
      'the balloon has most of its memory again',
      SLOW_MS,
    );
    t.comment(
      `${guest.name} ${n + 1}: ${kind}, ${mib} MiB; then ${Math.round(shrunk.balloon.actualBytes / MIB)} MiB in the balloon`,
    );
  }
}

void t.test('a hundred cycles of growing and shrinking, of eight kinds of work', async (t) => {
  const daemon = await startDaemon(t, { config: CONFIG });
  const names = ['one', 'two'];
  const guests = await Promise.all(
    names.map(async (name) => {
      const guest = await boot(t, daemon, name, {
        memoryMib: MEMORY_MIB,
        // A disk's controller that shares an interrupt line is not heard any more after many reads.
        acpi: true,
        extraArgs: [
          ...[
            '-drive',
            'if=none,id=cold,driver=null-co,read-zeroes=on,size=4096M,throttling.bps-read=134217728',
          ],
          ...['-device', 'nvme,drive=cold,serial=cold'],
        ],
      });
      // A disk that nobody has open has no page cache.
      await run(
        guest,
        `sleep 1000000 <${DISK} >/dev/null 2>&1 & mkdir /files; mount -t tmpfs -o size=90% files /files`,
      );
      return guest;
    }),
  );
  await Promise.all(guests.map((guest, n) => cycles(daemon, guest, 4 * n)));
  for (const guest of guests) {
    t.equal(await run(guest, `sed -n 's/^oom_kill //p' /proc/vmstat`), '0', `${guest.name} ended no program`);
    const { VIRTIO_BALLOON_S_OOM_KILL: told } = await daemon.stats(guest.name);
    t.equal(told, 0, 'and says so to its host');
  }
});
