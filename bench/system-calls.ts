import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Whether strace is installed, which counts system calls. */
export function countsSystemCalls(): boolean {
  try {
    execFileSync('strace', ['-V'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** How often a process and its threads made each system call while `work` went on: `strace -f -c`. It slows them down. */
export async function systemCallsDuring(
  pid: number,
  work: () => Promise<unknown>,
): Promise<Map<string, number>> {
  const folder = mkdtempSync(join(tmpdir(), 'strace-'));
  const file = join(folder, 'counts');
  const strace = spawn('strace', ['-f', '-c', '-o', file, '-p', String(pid)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  try {
    const [said] = (await once(strace.stderr, 'data')) as [Buffer];
    if (!said.includes('attached')) throw new Error(`strace: ${said.toString()}`);
    await work();
    strace.kill('SIGINT');
    await once(strace, 'exit');
    return callsIn(readFileSync(file, 'latin1'));
  } finally {
    strace.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
}

/**
 * The table of `strace -c`: lines have the share of time, seconds, microseconds a call, calls, errors where there were
 * any, and the name.
 */
export function callsIn(table: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [, calls, name = ''] of table.matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)$/gm))
    if (name !== 'total') counts.set(name, Number(calls));
  return counts;
}
