/** What the demo does, in order, and tells on the terminal. It only begins things: the stage ends them. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DaemonProcess } from '../../test/support/daemon.js';
import type { Guest } from '../../test/support/lab/guest.js';
import { sentence, type Outcome } from './outcome.js';
import { plot } from './plot.js';
import type { Recording, Sample } from './recording.js';
import { Sampler } from './sampler.js';
import { MEMORY_MIB, VM, type Stage } from './stage.js';
import type { Terminal } from './terminal.js';

const MIB = 2 ** 20;
const PAUSE_MS = 2000;
/** Left free when a program fills the guest: enough for the guest to go on, too little to make up for a GiB. */
const SPARED_MIB = 96;
const FILL_POLL_MS = 250;
const BAR_COLUMNS = 14;
const BAR_BLOCKS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const SHOW_LINES = 6;

export async function tell(
  stage: Stage,
  terminal: Terminal,
): Promise<{ recording: Recording; outcome: Outcome }> {
  const daemon = await stage.startDaemon();
  terminal.print(`balloond serves ${daemon.socketPath} (pid ${daemon.pid}).`);
  const guest = await stage.bootGuest(daemon);
  terminal.print(`QEMU boots Linux on ${MEMORY_MIB} MiB: -name guest=${VM} (pid ${guest.pid}).\n`);
  await guest.waitReady();

  const sampler = new Sampler(guest, (sample) => terminal.progress(progressLine(sample, terminal)));
  const freeMib = Math.floor((await sampler.sample()).guestFreeBytes / MIB);
  const fillMib = freeMib - SPARED_MIB;

  const use = async (words: string) => {
    sampler.mark(words);
    terminal.print(`A program in the guest uses ${fillMib} MiB, and ends.`);
    await fill(guest, fillMib);
    await sleep(PAUSE_MS);
    return (await sampler.sample()).hostBytes;
  };
  const balloonctl = async (...args: string[]) => {
    sampler.mark(`balloonctl ${args.join(' ')}`);
    await echo(daemon, terminal, args);
    await sleep(PAUSE_MS);
    return (await sampler.sample()).hostBytes;
  };

  const fullBytes = await use(`a program in the guest uses ${fillMib} MiB, and ends`);
  const takenBytes = await balloonctl('set', VM, '--balloon', '1G', '--wait');
  await balloonctl('set', VM, '--balloon', '0', '--wait');
  const againBytes = await use('the program runs again');
  await sampler.stop();

  const outcome = { fullBytes, takenBytes, againBytes };
  terminal.print('');
  for (const line of plot(sampler, terminal.paint)) terminal.print(line);
  terminal.print('');
  await echo(daemon, terminal, ['show', VM], SHOW_LINES);
  terminal.print('');
  await echo(daemon, terminal, ['events']);
  terminal.print(`\n${terminal.paint('bold', sentence(outcome))}`);
  return { recording: sampler, outcome };
}

/** Has a program in the guest take memory and write to all of it, while the guest goes on answering. */
async function fill(guest: Guest, memoryMib: number): Promise<void> {
  const program = `dd if=/dev/zero of=/dev/null bs=${memoryMib}M count=1`;
  await guest.sh(`rm -f /tmp/status; (${program}; echo $? > /tmp/status) >/dev/null 2>&1 &`);
  for (;;) {
    await sleep(FILL_POLL_MS);
    const { code, output } = await guest.sh('cat /tmp/status');
    if (code !== 0 || output === '') continue;
    if (output.trim() !== '0') throw new Error(`the guest's program ended with ${output.trim()}: ${program}`);
    return;
  }
}

/** Runs balloonctl as a person would see it; `linesMax`: so much of what it prints. */
async function echo(
  daemon: DaemonProcess,
  terminal: Terminal,
  args: readonly string[],
  linesMax = Infinity,
): Promise<void> {
  terminal.print(terminal.paint('bold', `$ balloonctl ${args.join(' ')}`));
  const lines = (await daemon.ok(...args)).trimEnd().split('\n');
  for (const line of lines.slice(0, linesMax)) terminal.print(line);
  if (lines.length > linesMax)
    terminal.print(terminal.paint('dim', `(${lines.length - linesMax} more lines)`));
}

function progressLine({ seconds, hostBytes, guestFreeBytes }: Sample, { paint }: Terminal): string {
  const size = (bytes: number) => `${Math.round(bytes / MIB)} MiB`.padStart(8);
  const bar = (bytes: number) => {
    const eighths = Math.round((bytes / (MEMORY_MIB * MIB)) * BAR_COLUMNS * 8);
    return ('█'.repeat(eighths / 8) + (BAR_BLOCKS[eighths % 8] ?? '')).padEnd(BAR_COLUMNS);
  };
  const host = `host ${size(hostBytes)} ${paint('blue', bar(hostBytes))}`;
  const guest = `guest free ${size(guestFreeBytes)} ${paint('orange', bar(guestFreeBytes))}`;
  return `${seconds.toFixed(1).padStart(6)} s   ${host}  ${guest}`;
}
