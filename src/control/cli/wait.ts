/** `balloonctl wait`: returns when the VMs are as they were waited for. */
import { setTimeout as sleep } from 'node:timers/promises';
import { passedOn, refusal } from '../../../protocol/control/refusal.js';
import type { VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import type { ControlClient } from '../client.js';
import type { WAIT_STATES } from './choices.js';
import { WaitTimeoutError } from './exit.js';
import { actualWords, printable, type Output } from './output.js';
import { isSelected, oneName, selectionWords, type Selection } from './selection.js';
import { isReached } from './set-target.js';
import { count } from './text.js';

const POLL_MS = 200;
const NAMES_SAID = 5;

type WaitState = (typeof WAIT_STATES)[number];

/** Whether a VM that there is keeps the command waiting. */
const KEEPS_WAITING: Readonly<Record<WaitState, (vm: VmView) => boolean>> = {
  running: ({ state }) => state !== 'running',
  target: (vm) => !isReached(vm),
  gone: () => true,
};

/** Prints the VMs as they are in the end. Throws WaitTimeoutError when they are not as wanted in `waitSeconds`. */
export async function wait(
  client: ControlClient,
  output: Output,
  selection: Selection,
  state: WaitState,
  waitSeconds: number,
): Promise<void> {
  const deadline = performance.now() + waitSeconds * 1000;
  for (;;) {
    const vms = (await client.list()).filter((vm) => isSelected(vm, selection));
    const others = vms.filter(KEEPS_WAITING[state]);
    const missing = vms.length === 0 && state !== 'gone';
    if (others.length === 0 && !missing) {
      print(output, vms, selection, state);
      return;
    }
    if (performance.now() >= deadline) {
      if (output.json) print(output, vms, selection, state);
      throw tooLate(others, selection, state, waitSeconds);
    }
    await sleep(Math.min(POLL_MS, Math.max(0, deadline - performance.now())));
  }
}

function print(output: Output, vms: readonly VmView[], selection: Selection, state: WaitState): void {
  if (output.json) output.document(oneName(selection) === null ? vms : (vms[0] ?? null));
  else if (state === 'gone') output.print(`no VM ${selectionWords(selection)}`);
  else for (const vm of vms) output.print(`${printable(vm.name)}: ${reachedWords(vm, state)}`);
}

function reachedWords(vm: VmView, state: WaitState): string {
  return state === 'target' ? `reached its target of ${formatSize(vm.balloon.targetBytes)}` : vm.state;
}

function tooLate(
  others: readonly VmView[],
  selection: Selection,
  state: WaitState,
  waitSeconds: number,
): WaitTimeoutError {
  const when = `after ${waitSeconds} s`;
  if (others.length === 0)
    return new WaitTimeoutError(
      refusal(`no VM ${selectionWords(selection)} ${when}`, 'see balloonctl list for those that are'),
    );
  const said = others.slice(0, NAMES_SAID).map((vm) => `${printable(vm.name)} ${stateWords(vm, state)}`);
  const more = others.length > said.length ? `, and ${count(others.length - said.length, 'more VM')}` : '';
  const [first] = others;
  const words = `${said.join(', ')}${more} ${when}`;
  return new WaitTimeoutError(
    first !== undefined && first.verdict !== null && others.length === 1
      ? passedOn(`${words}: ${printable(first.verdict)}`)
      : refusal(words, 'see balloonctl list'),
  );
}

function stateWords({ state: is, balloon }: VmView, state: WaitState): string {
  if (state !== 'target' || is === 'connected') return `is ${is}`;
  return `holds ${actualWords(balloon)} of ${formatSize(balloon.targetBytes)}`;
}
