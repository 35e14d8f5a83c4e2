/** `balloonctl reload`: one line for each setting that changed, and when it takes effect. */
import type { ReloadReport } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import { printable, type Output } from './output.js';

type Effect = ReloadReport['changes'][number]['effect'];

const WHEN: Record<Effect, string> = {
  now: 'in effect now',
  'next-connection': 'for VMs that connect from now on',
  restart: 'when the daemon restarts: systemctl restart balloond.service, VMs go on meanwhile',
};

export async function reload(client: ControlClient, output: Output): Promise<void> {
  const report = await client.reload();
  if (output.json) output.document(report);
  else output.print(renderReload(report));
}

export function renderReload({ file, changes }: ReloadReport): string {
  if (changes.length === 0) return `${printable(file)}: nothing changed`;
  return changes.map(({ key, effect }) => `${printable(key)}: ${WHEN[effect]}`).join('\n');
}
