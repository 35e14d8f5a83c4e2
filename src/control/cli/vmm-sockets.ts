/** Whether VMMs and operators can reach each socket on which the daemon listens. */
import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { listeningSockets } from '../../os/listeners.js';
import { bad, good, type Finding } from './finding.js';

const UNIT_SOCKET = '/run/balloond/balloond.sock';
const GROUP_WRITES = 0o020;

/** `pid`: of the daemon. */
export function examineSockets(pid: number): Finding[] {
  const paths = listenedPaths(pid);
  if (paths === null) return [good('daemon', 'sockets', 'may not be looked at: run this as root')];
  const findings = paths.flatMap((path) => {
    const problem = problemAt(path);
    if (problem === null) return [];
    const mend =
      path === UNIT_SOCKET
        ? 'systemctl restart balloond.socket, and VMs go on'
        : 'restart the daemon, as the line on its holder allows';
    return [bad('daemon', 'sockets', `${path} ${problem}`, mend)];
  });
  return findings.length > 0 ? findings : [good('daemon', 'sockets', paths.join(', '))];
}

/** Null: they may not be looked at. */
function listenedPaths(pid: number): string[] | null {
  try {
    const folder = `/proc/${pid}/fd`;
    const open = new Set(readdirSync(folder).map((fd) => linkAt(`${folder}/${fd}`)));
    const listening = listeningSockets(pid).filter(({ inode }) => open.has(`socket:[${inode}]`));
    return [...new Set(listening.map(({ path }) => path))].filter((path) => isAbsolute(path));
  } catch {
    return null;
  }
}

function linkAt(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function problemAt(path: string): string | null {
  const entry = statSync(path, { throwIfNoEntry: false });
  if (entry === undefined) return 'was removed, so nobody can connect';
  if (!entry.isSocket()) return 'is no socket any more, so nobody can connect';
  return (entry.mode & GROUP_WRITES) === 0 ? 'does not let its group connect' : null;
}
