/** `balloonctl set`: sends a target and, with `--wait`, watches until the guest has followed it. */
import {
  passedOn,
  refusal,
  refusalOf,
  type NextStep,
  type RefusalText,
} from '../../../protocol/control/refusal.js';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BalloonView, TargetRequest, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import { vmCommand } from '../../../protocol/control/vm-command.js';
import { ControlError, type ControlClient } from '../client.js';
import { WaitTimeoutError } from './exit.js';
import type { TargetWish } from './option-values.js';
import { actualWords, printable, type Output } from './output.js';

const POLL_MS = 200;
const PAGE_BYTES = 4096;

/** `waitSeconds` null: do not wait. On a time-out the last state is printed before WaitTimeoutError. */
export async function setTarget(
  client: ControlClient,
  output: Output,
  name: string,
  wish: TargetWish,
  waitSeconds: number | null,
): Promise<void> {
  const target =
    'bytes' in wish.wish ? request(wish, wish.wish.bytes) : resolved(wish, await client.show(name));
  const ordered = await client.setTarget(name, target);
  const vm = waitSeconds === null ? ordered : await followed(client, ordered, waitSeconds);
  const timedOut = waitSeconds !== null && !isReached(vm);
  if (output.json) output.document(vm);
  else {
    if (vm.state === 'connected') output.print(`${printable(name)}: ${later(target)} once its driver runs`);
    else if ('cacheLimitBytes' in target) output.print(renderLimit(vm));
    else output.print(renderTarget(vm));
    if (vm.verdict !== null && !timedOut) output.print(output.paint('yellow', printable(vm.verdict)));
  }
  if (timedOut) throw tooLate(vm, waitSeconds);
}

/**
 * Watches until the guest reached the target that was just set, for at most `waitSeconds`; returns the VM as it is then. Throws
 * ControlError when another target was set meanwhile.
 */
export async function followed(client: ControlClient, ordered: VmView, waitSeconds: number): Promise<VmView> {
  const deadline = performance.now() + waitSeconds * 1000;
  const order = orderOf(ordered);
  let vm = ordered;
  for (let timedOut = false; !isReached(vm) && !timedOut; timedOut = performance.now() >= deadline) {
    await sleep(Math.min(POLL_MS, Math.max(0, deadline - performance.now())));
    const before = vm;
    vm = await client.show(vm.name);
    // The daemon itself changes a target as it learns more of the guest's memory; the order is the same then.
    if (vm.balloon.targetBytes !== before.balloon.targetBytes && orderOf(vm) !== order) throw overruled(vm);
  }
  return vm;
}

/** The words for a VM that has not reached its target in `waitSeconds`. */
export function tooLate(vm: VmView, waitSeconds: number): WaitTimeoutError {
  return new WaitTimeoutError(explain(vm, waitSeconds));
}

/** Whether the guest was told of the target and got there. */
export function isReached({ state, balloon }: VmView): boolean {
  return state !== 'connected' && isAt(balloon);
}

function isAt({ targetBytes, actualBytes, actualUnknown }: BalloonView): boolean {
  return !actualUnknown && actualBytes === targetBytes;
}

/** The order for the target that holds, by the time at which it was given. */
function orderOf({ orders = [] }: Partial<Pick<VmView, 'orders'>>): string | null | undefined {
  return orders.find(({ order }) => order === 'target')?.since;
}

function request({ of, force }: TargetWish, bytes: number): TargetRequest {
  const forced = force && { force };
  if (of === 'cacheLimitBytes') return { cacheLimitBytes: bytes };
  return of === 'memoryBytes' ? { memoryBytes: bytes, ...forced } : { balloonBytes: bytes, ...forced };
}

/** What a wish means by the target that holds now, or by the memory of the guest. */
function resolved(wanted: TargetWish, vm: VmView): TargetRequest {
  const { of, wish } = wanted;
  if (vm.ramBytes === 0) {
    throw new ControlError(
      409,
      refusal(
        `the memory of ${printable(vm.name)} is not known yet, so that nothing is a part of it`,
        'give a size, or wait until its guest has booted',
      ),
    );
  }
  const { targetBytes } = of === 'cacheLimitBytes' ? (vm.cache ?? vm.balloon) : vm.balloon;
  const now = of === 'memoryBytes' ? vm.ramBytes - targetBytes : targetBytes;
  const bytes =
    'percent' in wish ? (vm.ramBytes * wish.percent) / 100 : now + ('moreBytes' in wish ? wish.moreBytes : 0);
  return request(wanted, Math.max(0, Math.round(bytes / PAGE_BYTES) * PAGE_BYTES));
}

function later(target: TargetRequest): string {
  if ('memoryBytes' in target) return `the guest is to keep ${formatSize(target.memoryBytes)}`;
  if ('balloonBytes' in target) return `the guest is to give up ${formatSize(target.balloonBytes)}`;
  return `the page cache balloon may hold up to ${formatSize(target.cacheLimitBytes)}`;
}

function renderTarget(vm: VmView): string {
  const { targetBytes, actualUnknown } = vm.balloon;
  const keeps = `the guest keeps ${formatSize(Math.max(0, vm.ramBytes - targetBytes))}`;
  const holds = actualUnknown ? 'it has yet to say what it holds' : `it holds ${actualWords(vm.balloon)} now`;
  const now = isAt(vm.balloon) ? 'reached' : holds;
  return `${printable(vm.name)}: balloon target ${formatSize(targetBytes)} (${keeps}), ${now}`;
}

function renderLimit(vm: VmView): string {
  const { targetBytes } = vm.cache ?? vm.balloon;
  return `${printable(vm.name)}: page cache balloon up to ${formatSize(targetBytes)}, it holds ${actualWords(vm.cache ?? vm.balloon)} now`;
}

function overruled(vm: VmView): ControlError {
  const target = formatSize(vm.balloon.targetBytes);
  return new ControlError(
    409,
    refusal(
      `the target of ${printable(vm.name)} was changed to ${target} by someone else while waiting`,
      'see balloonctl events',
    ),
  );
}

function explain(vm: VmView, waitSeconds: number): RefusalText {
  const { targetBytes, actualUnknown } = vm.balloon;
  const name = printable(vm.name);
  const held =
    vm.state === 'connected'
      ? `no guest driver ran in ${name} within ${waitSeconds} s`
      : actualUnknown
        ? `the guest of ${name} did not say within ${waitSeconds} s what its balloon holds`
        : `${name} holds ${actualWords(vm.balloon)} of ${formatSize(targetBytes)} after ${waitSeconds} s`;
  if (vm.verdict !== null) return refusalOf(`${held}:`, passedOn(printable(vm.verdict)));
  const step: NextStep =
    vm.state === 'running'
      ? `the guest may have no more to give; the target stands, ${vmCommand('see balloonctl show', name)}`
      : 'load virtio_balloon in the guest, or wait until it has booted; the order stands';
  return refusal(held, step);
}
