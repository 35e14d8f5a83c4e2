/** Why doctor finds no daemon, and the remedy for that cause. */
import { execFileSync, spawnSync } from 'node:child_process';
import { groupOf, type UnreachableError } from '../client.js';
import { bad, type Finding } from './finding.js';

const UNIT = 'balloond.service';
const RUN_TIMEOUT_MS = 10_000;

/** What systemd says of the unit of the daemon. */
export interface UnitState {
  readonly active: string;
  readonly sub: string;
  readonly result: string;
  /** An operator stopped it, or it failed for good: no start of it is under way. */
  readonly stopped: boolean;
}

/** `unit`: null without systemd. `mistakes`: of the files of the configuration; empty: none. */
export function examineUnreachable(
  error: Pick<UnreachableError, 'code' | 'message'>,
  socketPath: string,
  unit: UnitState | null,
  mistakes: string,
): Finding[] {
  const say = (found: string, mend: string): Finding => bad('daemon', 'reachable', found, mend);
  if (error.code === 'EACCES') {
    const group = groupOf(socketPath);
    if (group === null || group === 'root') return [say(error.message, 'run this as root')];
    return [say(error.message, `usermod -aG ${group} USER, and log in again`)];
  }
  // Nothing is known of the unit where systemd does not run.
  const otherwise = unit === null ? ', or balloond --supervise without systemd' : '';
  const start = `systemctl ${unit?.active === 'active' ? 'restart' : 'start'} ${UNIT}${otherwise}`;
  if (mistakes !== '') {
    return [
      bad('daemon', 'configuration', mistakes, `mend the mistake, then ${start}`),
      say(error.message, start),
    ];
  }
  if (unit?.active === 'failed' || unit?.sub === 'auto-restart') {
    const look = `journalctl -u ${UNIT} -n 20, mend the cause, then systemctl restart ${UNIT}`;
    return [say(`the unit ${UNIT} failed (${unit.result}): ${error.message}`, look)];
  }
  if (unit?.active === 'active' && error.code === 'ENOENT')
    return [say(`the unit ${UNIT} runs, but its control socket was removed: ${error.message}`, start)];
  return [say(error.message, start)];
}

export function unitState(): UnitState | null {
  try {
    const said = execFileSync('systemctl', ['show', UNIT, '-p', 'ActiveState,SubState,Result,Job'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: RUN_TIMEOUT_MS,
    });
    return unitStateOf(said);
  } catch {
    return null;
  }
}

/** The state in the lines `KEY=VALUE` that systemctl prints of a unit. */
export function unitStateOf(said: string): UnitState {
  const valueOf = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(said)?.[1] ?? '';
  const active = valueOf('ActiveState');
  // A restart is a job, which the unit has also between its two halves.
  const stopped = ['inactive', 'failed'].includes(active) && ['', '0'].includes(valueOf('Job'));
  return { active, sub: valueOf('SubState'), result: valueOf('Result'), stopped };
}

/** The words of `balloond --check-config` where it finds mistakes; empty without any, or without that program. */
export function configurationMistakes(): string {
  const { status, stderr } = spawnSync('balloond', ['--check-config'], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin` },
    timeout: RUN_TIMEOUT_MS,
  });
  return status === 1 ? stderr.trim() : '';
}
