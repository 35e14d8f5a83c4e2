import { setTimeout as pause } from 'node:timers/promises';
import { ControlClient } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { Guest } from '../test/support/lab/guest.js';
import { contextSwitches, cpuSeconds } from './process-cost.js';
import { countsSystemCalls, systemCallsDuring } from './system-calls.js';
import { median, type Row } from './table.js';
import type { Step } from './vcpu.js';

/** A real Linux guest under QEMU and TCG gives memory up and takes it back, while its daemon is watched. */
const RAM_MIB = 1024;
const BALLOON_MIB = 600;
/** Touched before each inflation, so that the host has something to get back. */
const TOUCHED_MIB = 700;
const ROUNDS = 2;
const LOOK_MS = 200;
const LOOKS = 600;
const PAGES_PER_MIB = 256;
const STEPS: readonly Step[] = ['inflate', 'deflate'];
const FEATURES = [
  'VIRTIO_BALLOON_F_MUST_TELL_HOST',
  'VIRTIO_BALLOON_F_STATS_VQ',
  'VIRTIO_BALLOON_F_DEFLATE_ON_OOM',
];

class WatchedGuest {
  readonly #daemon: DaemonProcess;
  readonly #guest: Guest;
  readonly #client: ControlClient;

  private constructor(daemon: DaemonProcess, guest: Guest) {
    this.#daemon = daemon;
    this.#guest = guest;
    this.#client = new ControlClient(daemon.controlPath);
  }

  /** Free page reporting is off, so that the balloon alone gives memory back. */
  static async boot(program: string): Promise<WatchedGuest> {
    const features = JSON.stringify(FEATURES);
    const config = `[[socket]]\npath = "{folder}/vhost.sock"\nfeatures = ${features}\n`;
    const daemon = await DaemonProcess.start({ program, config });
    const sockets = [{ path: daemon.socketPath, numVqs: 3 }];
    const guest = await Guest.boot({ name: 'real', memoryMib: RAM_MIB, sockets });
    await guest.waitReady();
    return new WatchedGuest(daemon, guest);
  }

  get pid(): number {
    return this.#daemon.pid;
  }

  touch(): Promise<boolean> {
    return this.#guest.eat(TOUCHED_MIB);
  }

  /**
   * Orders a balloon of this size and waits for it by the guest's own count, which asks nothing of the daemon; then for the host's
   * memory.
   */
  async move(step: Step): Promise<void> {
    const mib = step === 'inflate' ? BALLOON_MIB : 0;
    await this.#client.setTarget('real', { balloonBytes: mib * 2 ** 20 });
    for (let look = 0; ; look++) {
      await pause(LOOK_MS);
      const isFree = mib === 0 || this.#guest.memfdAllocatedBytes() <= (RAM_MIB - mib) * 2 ** 20;
      if (isFree && (await this.#balloonPages()) === mib * PAGES_PER_MIB) break;
      if (look > LOOKS) throw new Error(`the guest does not come to ${mib} MiB`);
    }
    await pause(LOOK_MS);
  }

  async stop(): Promise<void> {
    await this.#guest.kill();
    await this.#daemon.stop();
  }

  async #balloonPages(): Promise<number> {
    const { output } = await this.#guest.sh('cat /proc/vmstat');
    const of = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(output)?.[1]);
    return of('balloon_inflate') - of('balloon_deflate');
  }
}

/** One guest for each program of a daemon, one after the other. */
export async function guestRows(builds: readonly { name: string; program: string }[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { name, program } of builds) {
    const watched = await WatchedGuest.boot(program);
    try {
      rows.push(...(await costs(name, watched)));
    } finally {
      await watched.stop();
    }
  }
  return rows;
}

async function costs(name: string, watched: WatchedGuest): Promise<Row[]> {
  const { pid } = watched;
  const cpu = { inflate: [] as number[], deflate: [] as number[] };
  const switches = { inflate: [] as number[], deflate: [] as number[] };
  const calls = new Map<Step, Map<string, number>>();
  for (let round = 0; round < ROUNDS; round++) {
    await watched.touch();
    for (const step of STEPS) {
      const [cpuBefore, switchesBefore] = [cpuSeconds(pid), contextSwitches(pid)];
      await watched.move(step);
      cpu[step].push(cpuSeconds(pid) - cpuBefore);
      switches[step].push(contextSwitches(pid) - switchesBefore);
    }
  }
  if (countsSystemCalls()) {
    await watched.touch();
    for (const step of STEPS) calls.set(step, await systemCallsDuring(pid, () => watched.move(step)));
  }
  return STEPS.map((step) => {
    const counts = [...(calls.get(step) ?? [])].sort(([, a], [, b]) => b - a);
    const perMib = (count: number): string => (count / BALLOON_MIB).toFixed(1);
    return {
      step: `${step}s`,
      daemon: name,
      'daemon CPU s/GiB': (median(cpu[step]) / (BALLOON_MIB / 1024)).toFixed(3),
      'context switches/MiB': perMib(median(switches[step])),
      'system calls/MiB':
        counts.length === 0 ? '-' : perMib(counts.reduce((sum, [, count]) => sum + count, 0)),
      'most often': counts
        .slice(0, 8)
        .map(([call, count]) => `${call} ${perMib(count)}`)
        .join(', '),
    };
  });
}
