/** Guests that work as Debian's programs do, on a disk of their own (scripts/work-image, scripts/source-image). */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { Guest, type GuestOptions } from '../test/support/lab/guest.js';
import { CPU } from './working-sets.js';

const MIB = 2 ** 20;
export const WORKER_MIB = 1024;
const DISK_MIB_PER_SECOND = 128;
const TIMEOUT_MS = 400_000;

/** The output of a workload is its result. */
export const WORKLOADS = {
  grep: 'grep -rlF serialization_library_version /work/boost/[a-p]* | sort',
  sqlite3: `sqlite3 -readonly /work/orders.db 'select country, count(*), sum(cents), sum(length(note)) from customers
    join orders on orders.customer = customers.id group by country'`,
  gcc: 'cd /work; for name in gun minigzip zran; do gcc -O1 -c -o /tmp/$name.o $name.c || exit; done; md5sum /tmp/*.o; rm /tmp/*.o',
};

type WorkerOptions = Pick<GuestOptions, 'name'> &
  Pick<Partial<GuestOptions>, 'memoryMib' | 'sockets' | 'builtinBalloon' | 'extraArgs'> & {
    readonly diskMibPerSecond?: number;
  };

/** Boots a guest, of 1 GiB by default, with the disk that this script makes, which gives 128 MiB/s at most by default. */
export async function bootWorker(
  { diskMibPerSecond = DISK_MIB_PER_SECOND, ...options }: WorkerOptions,
  script: 'work-image' | 'source-image' = 'work-image',
): Promise<Guest> {
  const image = execFileSync('sh', [join(import.meta.dirname, '../../scripts', script)], {
    encoding: 'utf8',
  });
  const file = image.trim().replaceAll(',', ',,');
  const guest = await Guest.boot({
    memoryMib: WORKER_MIB,
    ...options,
    // An emulated controller that shares a line with others is not heard any more after many small reads.
    acpi: true,
    extraArgs: [
      ...['-cpu', CPU],
      '-drive',
      `if=none,id=work,format=raw,readonly=on,file=${file},throttling.bps-read=${diskMibPerSecond * MIB}`,
      ...['-device', 'nvme,drive=work,serial=work'],
      ...(options.extraArgs ?? []),
    ],
  });
  await guest.waitReady();
  const { code, output } = await guest.sh(
    'mkdir /tree && mount -r /dev/nvme0n1 /tree && mount -t tmpfs tmp /tree/tmp && mount --bind /dev /tree/dev',
  );
  if (code !== 0) throw new Error(`${guest.name}: ${output}${guest.consoleLog}`);
  return guest;
}

/** The command as it is run in the Debian of the disk. */
export function inTree(command: string): string {
  return `PATH=/usr/bin chroot /tree sh -c '${command.replaceAll("'", `'\\''`)}'`;
}

/** Runs a workload to its end. Throws where its result is another than `expected`. */
export async function work(
  guest: Guest,
  command: string,
  expected?: string,
  timeoutMs = TIMEOUT_MS,
): Promise<{ readonly seconds: number; readonly output: string }> {
  const start = performance.now();
  const { code, output } = await guest.sh(inTree(command), timeoutMs);
  const seconds = (performance.now() - start) / 1000;
  if (code !== 0 || output !== (expected ?? output))
    throw new Error(`${guest.name} ended with ${code}: ${output}${guest.consoleLog}`);
  return { seconds, output };
}
