/** `balloonctl policy show, mode, pause, resume, explain`. */
import { refusal } from '../../../protocol/control/refusal.js';
import { pastWords } from '../../../protocol/control/past-words.js';
import type { PolicyState, PoolState, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import { vmCommand } from '../../../protocol/control/vm-command.js';
import { ControlError, type ControlClient } from '../client.js';
import type { POLICY_MODES } from './choices.js';
import { printable, type Output } from './output.js';
import { orderLines } from './show.js';
import { alignColumns, COLUMNS_ELSEWHERE } from './text.js';

export async function showPolicy(client: ControlClient, output: Output): Promise<void> {
  const policy = await client.policy();
  if (output.json) output.document(policy);
  else output.print(renderPolicy(policy, output.columns ?? COLUMNS_ELSEWHERE));
}

/** `vm` null: all of them. */
export async function pausePolicy(
  client: ControlClient,
  output: Output,
  vm: string | null,
  paused: boolean,
): Promise<void> {
  // The balloon may be nearly empty by the time that it can be asked for.
  const held = vm !== null && !paused ? (await client.show(vm)).balloon.actualBytes : 0;
  const policy = await client.changePolicy(vm === null ? { paused } : { paused, vm });
  if (output.json) output.document(policy);
  else {
    // Of a VM that is resumed while all are paused, the policy keeps away all the same.
    const still = vm !== null && !paused && policy.paused;
    const more = still ? '; all VMs are still paused: balloonctl policy resume' : '';
    output.print(`${vm === null ? 'the policy' : printable(vm)}: ${paused ? 'paused' : 'resumed'}${more}`);
    if (vm !== null && !paused) printTargets(output, await client.show(vm), held);
  }
}

/** Where the policy acts, a target stays until the policy sets another one; else the guest has its memory back. */
function printTargets(output: Output, { name, balloon, cache, policy }: VmView, heldBytes: number): void {
  if (balloon.targetBytes === 0 && heldBytes > 0)
    output.print(`its balloon gives ${formatSize(heldBytes)} back to the guest`);
  const until = (option: string): string => {
    if (policy?.mode === 'auto') return 'the policy changes it';
    if (policy?.mode === 'manual')
      return 'you change its [[vm]] in the configuration, which has the policy leave the VM alone';
    return vmCommand('balloonctl set', printable(name), `--${option} SIZE`);
  };
  if (balloon.targetBytes > 0)
    output.print(`its balloon target is ${formatSize(balloon.targetBytes)} until ${until('balloon')}`);
  if (cache !== null && cache.targetBytes > 0) {
    const limit = `its page cache balloon may hold up to ${formatSize(cache.targetBytes)}`;
    output.print(`${limit} until ${until('cache-limit')}`);
  }
}

export async function explainPolicy(client: ControlClient, output: Output, name: string): Promise<void> {
  const vm = (await client.policy()).vms.find((candidate) => candidate.name === name);
  if (vm === undefined)
    throw new ControlError(404, refusal(`no VM is called ${printable(name)}`, 'see balloonctl list'));
  if (output.json) {
    output.document(vm);
    return;
  }
  const { band, minBytes, maxBytes, mode, force, said, saidAt, now } = vm;
  const held = force === 'none' ? '' : `, under force (${force})`;
  output.print(
    `${printable(name)} (${printable(band)}, ${formatSize(minBytes)} to ${formatSize(maxBytes)}): ${mode}${held}`,
  );
  if (said !== null && saidAt !== null) output.print(`${saidAt.replace(/\.\d+Z$/, 'Z')} ${printable(said)}`);
  output.print(`now: ${printable(now)}`);
}

/** `mode` null: shows the mode that holds. */
export async function policyMode(
  client: ControlClient,
  output: Output,
  mode: (typeof POLICY_MODES)[number] | null,
): Promise<void> {
  const policy =
    mode === null
      ? await client.policy()
      : await client.changePolicy({ mode: mode === 'configured' ? null : mode });
  if (output.json) output.document(policy);
  else output.print(`the policy: ${modeWords(policy)}`);
}

/** The actions that mode auto would take now, one a line. */
export async function policyDryRun(client: ControlClient, output: Output): Promise<void> {
  const advice = await client.policyAdvice();
  if (output.json) output.document(advice);
  else if (advice.length === 0) output.print('mode auto would do nothing now');
  else for (const { says } of advice) output.print(`mode auto would have ${printable(pastWords(says))}`);
}

function modeWords({ mode, paused }: Pick<PolicyState, 'mode' | 'paused'>): string {
  const acts = { observe: 'it says what it would do', auto: 'it acts', off: 'it does nothing' }[mode];
  return `mode ${mode}${paused ? ', paused' : ''}: ${paused ? 'it does nothing' : acts}`;
}

function memoryWords(memory: Omit<PoolState, 'pageBytes'>): string {
  const { totalBytes, availableBytes, reserveBytes, short } = memory;
  const of = `${formatSize(availableBytes)} available of ${formatSize(totalBytes)}`;
  return `${of}, reserve ${formatSize(reserveBytes)}${short ? ': short' : ''}`;
}

/** `columns`: of the terminal. A daemon of an earlier build tells of no orders. */
function renderPolicy(policy: Omit<PolicyState, 'orders'> & Partial<PolicyState>, columns: number): string {
  const { mode, paused, problem, reserveBytes, host, pools = [], vms, orders = [] } = policy;
  const seen = host === null ? 'unknown' : memoryWords({ ...host, reserveBytes });
  const rows = vms.map(({ name, band, minBytes, maxBytes, mode: own, force }) => [
    printable(name),
    printable(band),
    formatSize(minBytes),
    formatSize(maxBytes),
    own,
    force,
  ]);
  return [
    modeWords({ mode, paused }),
    ...orderLines({ orders }, columns),
    `${host?.part === true ? 'memory for VMs' : 'host'} ${seen}`,
    ...pools.map((pool) => `pool of ${formatSize(pool.pageBytes)} pages ${memoryWords(pool)}`),
    ...(problem === null ? [] : [`problem: ${printable(problem)}`]),
    ...alignColumns([['VM', 'BAND', 'MIN', 'MAX', 'MODE', 'FORCE'], ...rows], '<<>><<'),
  ].join('\n');
}
