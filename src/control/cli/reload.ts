/** `balloonctl reload`: one line for each setting that changed, and when it takes effect. */
import type { ReloadReport } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import type { DaemonSaid } from './daemon-notes.js';
import { printable, type Output } from './output.js';

type Change = ReloadReport['changes'][number];
type Effect = ReloadReport['changes'][number]['effect'];

export async function reload(client: ControlClient, output: Output): Promise<void> {
  const report = await client.reload();
  if (output.json) output.document(report);
  else output.print(renderReload(report, await client.daemon()));
}

function renderReload({ file, changes }: ReloadReport, daemon: DaemonSaid): string {
  if (changes.length === 0) return `${printable(file)}: nothing changed`;
  const when: Record<Effect, string> = {
    now: 'in effect now',
    'next-connection': 'for VMs that connect from now on',
    restart: `when the daemon restarts: ${restartWords(daemon)}`,
  };
  return changes.map(({ key, effect }: Change) => `${printable(key)}: ${when[effect]}`).join('\n');
}

function restartWords({ holder, pid }: DaemonSaid): string {
  if (holder === 'systemd') return 'systemctl restart balloond.service; systemd holds the VMs meanwhile';
  if (holder === 'keeper') {
    return `kill ${pid ?? 'PID'}; the keeper holds the VMs meanwhile and starts the next daemon`;
  }
  return holder === null
    ? 'restart the daemon when no VM runs, since no process holds the VMs meanwhile (balloonctl doctor says more)'
    : 'the daemon is too old to say whether a process holds the VMs meanwhile (balloonctl doctor says more)';
}
