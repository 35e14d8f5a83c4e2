/** `balloonctl set`: sends targets and, with `--wait`, watches until the guests have followed them. */
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
import { carryOut, type Done } from './many.js';
import type { TargetWish } from './option-values.js';
import { actualWords, printable, type Output } from './output.js';
import type { Selection } from './selection.js';

const POLL_MS = 200;
/** Of many VMs that are watched, each is looked at less often. */
const POLL_EACH_MS = 20;
const PAGE_BYTES = 4096;

/** The ways to set a target. */
interface Manner {
  /** How long to wait until the guest has followed; null: do not wait. */
  readonly waitSeconds: number | null;
  /** Says what the target would be, and sets none. */
  readonly dryRun: boolean;
}

/** Sets the target of each selected VM. On a time-out the last state is printed before WaitTimeoutError. */
export function setTarget(
  client: ControlClient,
  output: Output,
  selection: Selection,
  wish: TargetWish,
  { waitSeconds, dryRun }: Manner,
): Promise<void> {
  return carryOut(client, output, selection, async (name, among) => {
    const before = dryRun || !('bytes' in wish.wish) ? await client.show(name) : null;
    const target = resolved(wish, before);
    if (before !== null && dryRun) return wouldBe(before, await client.tryTarget(name, target), target);
    const ordered = await client.setTarget(name, target);
    const vm =
      waitSeconds === null ? ordered : await followed(client, ordered, waitSeconds, among * POLL_EACH_MS);
    const late = waitSeconds !== null && !isReached(vm) ? tooLate(vm, waitSeconds) : null;
    const lines = [targetWords(vm, target)];
    if (vm.verdict !== null && late === null) lines.push(output.paint('yellow', printable(vm.verdict)));
    return { vm, lines, ...(late !== null && { late }) };
  });
}

/** The target of a VM and how far its guest has followed, in a line. */
export function targetWords(vm: VmView, target: TargetRequest): string {
  if (vm.state === 'connected') return `${printable(vm.name)}: ${later(target)} once its driver runs`;
  return 'cacheLimitBytes' in target ? renderLimit(vm) : renderTarget(vm);
}

/** The target that a VM would have beside the one that it has. */
function wouldBe(before: VmView, after: VmView, target: TargetRequest): Done {
  const of = ({ balloon, cache }: VmView): string =>
    formatSize(('cacheLimitBytes' in target ? (cache ?? balloon) : balloon).targetBytes);
  const what = 'cacheLimitBytes' in target ? 'page cache balloon up to' : 'balloon target';
  const keeps = formatSize(Math.max(0, after.ramBytes - after.balloon.targetBytes));
  const kept = 'cacheLimitBytes' in target ? '' : ` (the guest keeps ${keeps})`;
  const now = of(before) === of(after) ? 'as now' : `now ${of(before)}`;
  const words =
    after.ramBytes === 0 ? `${later(target)} once its driver runs` : `${what} ${of(after)}${kept}, ${now}`;
  return { vm: after, lines: [`${printable(after.name)}: would be: ${words}`] };
}

/**
 * Watches until the guest reached the target that was just set, for at most `waitSeconds`; returns the VM as it is then. Throws
 * ControlError when another target was set meanwhile. `pollMs`: the least time between two looks.
 */
export async function followed(
  client: ControlClient,
  ordered: VmView,
  waitSeconds: number,
  pollMs = 0,
): Promise<VmView> {
  const deadline = performance.now() + waitSeconds * 1000;
  const order = orderOf(ordered);
  let vm = ordered;
  for (let timedOut = false; !isReached(vm) && !timedOut; timedOut = performance.now() >= deadline) {
    await sleep(Math.min(Math.max(POLL_MS, pollMs), Math.max(0, deadline - performance.now())));
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

/** What a wish means; by the target that holds now, or by the memory of the guest, where `vm` is needed. */
export function resolved(wanted: TargetWish, vm: VmView | null): TargetRequest {
  const { of, wish } = wanted;
  if ('bytes' in wish) return request(wanted, wish.bytes);
  if (vm === null || vm.ramBytes === 0) {
    throw new ControlError(
      409,
      refusal(
        `the memory of ${printable(vm?.name ?? 'the VM')} is not known yet, so that nothing is a part of it`,
        'give a size, or wait until its guest has booted',
      ),
    );
  }
  const { targetBytes } = of === 'cacheLimitBytes' ? (vm.cache ?? vm.balloon) : vm.balloon;
  const now = of === 'memoryBytes' ? vm.ramBytes - targetBytes : targetBytes;
  const bytes = 'percent' in wish ? (vm.ramBytes * wish.percent) / 100 : now + wish.moreBytes;
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
  const { targetBytes, actualBytes, actualUnknown } = vm.balloon;
  const name = printable(vm.name);
  const guest = actualBytes > targetBytes ? 'has yet to take its memory back' : 'may have no more to give';
  const held =
    vm.state === 'connected'
      ? `no guest driver ran in ${name} within ${waitSeconds} s`
      : actualUnknown
        ? `the guest of ${name} did not say within ${waitSeconds} s what its balloon holds`
        : `${name} holds ${actualWords(vm.balloon)} of ${formatSize(targetBytes)} after ${waitSeconds} s`;
  if (vm.verdict !== null) return refusalOf(`${held}:`, passedOn(printable(vm.verdict)));
  const step: NextStep =
    vm.state === 'running'
      ? `the guest ${guest}; the target stands, ${vmCommand('see balloonctl show', name)}`
      : 'load virtio_balloon in the guest, or wait until it has booted; the order stands';
  return refusal(held, step);
}
