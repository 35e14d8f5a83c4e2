import { setTimeout as pause } from 'node:timers/promises';
import { ControlClient } from '../src/control/client.js';
import { DaemonProcess } from '../test/support/daemon.js';
import { Guest, type GuestOptions } from '../test/support/lab/guest.js';
import { cpuSeconds } from './process-cost.js';
import { report, spread, type Row } from './table.js';

/**
 * A real Linux guest gives up most of its memory and takes it back: QEMU's built-in balloon, commanded and watched by
 * QMP, against balloond, commanded and watched by its control API. Both guests run all the time and take turns; the
 * one whose turn it is not sleeps. Free page reporting is off, so that the balloon alone gives memory back.
 */
const RAM_MIB = 2048;
const BALLOON_MIB = 1536;
/** Touched before each inflation, so that the host has something to get back. */
const TOUCHED_MIB = 1800;
const ROUNDS = 3;
const LOOK_MS = 5;
const TIMEOUT_MS = 120_000;
const BALLOON_BYTES = BALLOON_MIB * 2 ** 20;
const RAM_BYTES = RAM_MIB * 2 ** 20;

interface Contender {
  name: string;
  guest: Guest;
  /** The daemon's, beside QEMU's. */
  daemonPid: number | null;
  command: (balloonBytes: number) => Promise<unknown>;
  actualBytes: () => Promise<number>;
  /** Whether the host gets anything. */
  discards: boolean;
}

interface Move {
  /** From the command. */
  actualSeconds: number;
  /** From the command until the host has its memory; null: it need not. */
  freeSeconds: number | null;
  hostCpuSeconds: number;
}

function boot(name: string, options: Partial<GuestOptions>): Promise<Guest> {
  return Guest.boot({ name, memoryMib: RAM_MIB, ...options });
}

async function builtin(): Promise<Contender> {
  const guest = await boot('builtin', { extraArgs: ['-device', 'virtio-balloon-pci,id=balloon0'] });
  return {
    name: 'QEMU built-in',
    guest,
    daemonPid: null,
    discards: true,
    command: (bytes) => guest.qmp('balloon', { value: RAM_BYTES - bytes }),
    actualBytes: async () => {
      const { actual } = (await guest.qmp('query-balloon')) as { actual: number };
      return RAM_BYTES - actual;
    },
  };
}

/** One guest is both: balloond as it is, and told to discard nothing, which leaves what the guest itself takes. */
async function balloond(daemon: DaemonProcess): Promise<Contender[]> {
  const guest = await boot('ours', { sockets: [{ path: daemon.socketPath, numVqs: 3 }] });
  const client = new ControlClient(daemon.controlPath);
  return [true, false].map((discards) => ({
    name: discards ? 'balloond' : 'balloond, inhibited',
    guest,
    daemonPid: daemon.pid,
    discards,
    command: async (balloonBytes) => {
      await (discards ? client.allow('ours') : client.inhibit('ours', 'benchmark'));
      return client.setTarget('ours', { balloonBytes });
    },
    actualBytes: async () => (await client.show('ours')).balloon.actualBytes,
  }));
}

async function move(contender: Contender, bytes: number): Promise<Move> {
  const { guest, daemonPid, command, actualBytes } = contender;
  const frees = contender.discards && bytes > 0;
  const cpu = (): number => cpuSeconds(guest.pid) + (daemonPid === null ? 0 : cpuSeconds(daemonPid));
  const cpuBefore = cpu();
  const start = performance.now();
  const seconds = (): number => (performance.now() - start) / 1000;
  let actualSeconds: number | null = null;
  let freeSeconds: number | null = null;
  await command(bytes);
  while (actualSeconds === null || (frees && freeSeconds === null)) {
    if (actualSeconds === null && (await actualBytes()) === bytes) actualSeconds = seconds();
    if (frees && guest.memfdAllocatedBytes() <= RAM_BYTES - BALLOON_BYTES) freeSeconds ??= seconds();
    if (seconds() * 1000 > TIMEOUT_MS)
      throw new Error(
        `${guest.name} came to ${await actualBytes()} bytes in its balloon, not ${bytes}, and ${guest.memfdAllocatedBytes()} in the host`,
      );
    await pause(LOOK_MS);
  }
  return { actualSeconds, freeSeconds, hostCpuSeconds: cpu() - cpuBefore };
}

function row(direction: string, name: string, moves: readonly Move[]): Row {
  return {
    direction,
    device: name,
    's to actual': spread(moves.map(({ actualSeconds }) => actualSeconds)),
    's until the host has it': spread(moves.flatMap(({ freeSeconds }) => freeSeconds ?? [])),
    'CPU s': spread(moves.map(({ hostCpuSeconds }) => hostCpuSeconds)),
  };
}

const daemon = await DaemonProcess.start({
  config: [
    '[[socket]]',
    'path = "{folder}/vhost.sock"',
    'features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ", "VIRTIO_BALLOON_F_DEFLATE_ON_OOM"]',
  ].join('\n'),
});
const contenders: Contender[] = [];
const results = new Map<Contender, { inflates: Move[]; deflates: Move[] }>();
try {
  contenders.push(await builtin(), ...(await balloond(daemon)));
  for (const contender of contenders) results.set(contender, { inflates: [], deflates: [] });
  for (const { guest } of contenders) await guest.waitReady();
  for (let round = 0; round < ROUNDS; round++) {
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      await contender.guest.eat(TOUCHED_MIB);
      results.get(contender)?.inflates.push(await move(contender, BALLOON_BYTES));
      results.get(contender)?.deflates.push(await move(contender, 0));
    }
  }
} finally {
  for (const { guest } of contenders) await guest.kill();
  await daemon.stop();
}
report(
  'guest',
  (['inflates', 'deflates'] as const).flatMap((which) =>
    contenders.map((each) => row(which.slice(0, -1), each.name, results.get(each)?.[which] ?? [])),
  ),
);
