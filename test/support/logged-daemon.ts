// The real daemon with a log that breaks.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { BIN } from './daemon.js';
import type { LogChannel } from './log-channel.js';

const TIMEOUT_MS = 30_000;
export const NOISE_BYTES = 100_000;
/** So many events of a kind are logged at once. */
export const AT_ONCE = 10;

/** A daemon, or its keeper, whose log goes to a channel. */
export interface LoggedDaemon {
  readonly child: ChildProcess;
  readonly folder: string;
  readonly control: ControlClient;
  /** Where VMMs connect. */
  readonly socketPath: string;
  /** Of the program, which is the keeper where there is one. */
  readonly pid: number;
}

/** What `look` finds at last. */
export async function until<T>(
  what: string,
  look: () => Promise<T | null | false> | T | null | false,
): Promise<T> {
  for (const deadline = performance.now() + TIMEOUT_MS; performance.now() < deadline; await sleep(20)) {
    const found = await look();
    if (found !== null && found !== false) return found;
  }
  throw new Error(`never: ${what}`);
}

/** Serves VMMs at vhost.sock in `folder`, and ends with the test. */
export async function startLogged(
  t: Test,
  channel: LogChannel,
  folder: string,
  more: string[],
): Promise<LoggedDaemon> {
  writeFileSync(join(folder, 'balloond.toml'), `[[socket]]\npath = "${join(folder, 'vhost.sock')}"\n`);
  const script = `echo $$ >'${folder}/pid'; ${channel.shell}`;
  const program = [process.execPath, join(BIN, 'balloond.js'), '--control', join(folder, 'control.sock')];
  const args = [
    ...program,
    '--config',
    join(folder, 'balloond.toml'),
    '--log-format',
    channel.format,
    ...more,
  ];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'sh', '-c', script, 'sh', ...args], {
    stdio: 'ignore',
  });
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    // A keeper takes its daemon along.
    child.kill('SIGTERM');
    await once(child, 'exit');
  });
  const control = new ControlClient(join(folder, 'control.sock'));
  await until('the daemon serves', () =>
    control.list().then(
      () => true,
      () => false,
    ),
  );
  return {
    child,
    folder,
    control,
    socketPath: join(folder, 'vhost.sock'),
    pid: Number(readFileSync(join(folder, 'pid'), 'utf8')),
  };
}

/** Long lines, more than the channel and the program's own room hold together: each names a key that the file cannot have. */
export async function makeNoise({ folder, control }: LoggedDaemon): Promise<void> {
  const file = join(folder, 'balloond.toml');
  const right = readFileSync(file);
  writeFileSync(file, `${'x'.repeat(NOISE_BYTES)} = 1\n`);
  for (let n = 0; n < AT_ONCE; n++) await control.reload().catch(() => undefined);
  writeFileSync(file, right);
}
