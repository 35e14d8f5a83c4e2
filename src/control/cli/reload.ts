/** `balloonctl reload`: one line for each setting that changed, and when it takes effect. */
import type { ReloadReport, VmOrder, VmView } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import type { DaemonSaid } from './daemon-notes.js';
import { printable, type Output } from './output.js';

type Named = Pick<VmView, 'name'>;
type Change = ReloadReport['changes'][number];
type Effect = ReloadReport['changes'][number]['effect'];

export async function reload(client: ControlClient, output: Output, dryRun = false): Promise<void> {
  const report = await client.reload(dryRun);
  if (output.json) output.document(report);
  else {
    const words = renderReload(report, await client.daemon(), await overruled(client, report));
    output.print(dryRun ? words.replaceAll(/^/gm, 'would be: ') : words);
  }
}

/** VMs for which the word of an operator goes before the target of the configuration, with that word. */
async function overruled(client: ControlClient, { changes }: ReloadReport): Promise<[Named, VmOrder][]> {
  if (!changes.some(({ key }) => key.startsWith('vm target'))) return [];
  const vms: (Omit<VmView, 'orders'> & Partial<VmView>)[] = await client.list();
  return vms.flatMap((vm): [Named, VmOrder][] => {
    const targets = (vm.orders ?? []).filter(({ order }) => order === 'target');
    const first = targets.find(({ by }) => by === 'operator');
    return first === undefined || targets.length === 1 ? [] : [[vm, first]];
  });
}

function renderReload(
  { file, changes }: ReloadReport,
  daemon: DaemonSaid,
  others: readonly [Named, VmOrder][],
): string {
  if (changes.length === 0) return `${printable(file)}: nothing changed`;
  const when: Record<Effect, string> = {
    now: 'in effect now',
    'next-connection': 'for VMs that connect from now on',
    restart: `when the daemon restarts: ${restartWords(daemon)}`,
  };
  const lines = changes.map(({ key, effect }: Change) => `${printable(key)}: ${when[effect]}`);
  const held = others.map(
    ([{ name }, { says, undo }]) =>
      `${printable(name)}: an operator's order goes before its target in the configuration (${says}): ${undo} takes it back`,
  );
  return [...lines, ...held].join('\n');
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
