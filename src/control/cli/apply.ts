/** `balloonctl apply`: brings VMs to the targets and limits of a file. Applied once more, the file changes nothing. */
import { LIMIT_NAMES } from '../../../protocol/control/limits.js';
import { passedOn } from '../../../protocol/control/refusal.js';
import type { LimitRequest, TargetRequest, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import { ControlError, type ControlClient } from '../client.js';
import type { TargetWish } from './option-values.js';
import { printable, type Output } from './output.js';
import { resolved, targetWords } from './set-target.js';
import { cgroupLines } from './show.js';
import { readTargets, targetsOf, type VmTargets } from './targets-file.js';
import { count } from './text.js';

/** Something that has to change of a VM. */
interface Step {
  /** The VM as it would be; where only the daemon knows, as it is. */
  readonly would: VmView;
  readonly act: () => Promise<VmView>;
  readonly words: (vm: VmView) => string[];
}

/** `dryRun`: says what would change, and changes nothing. Throws one error that has those of all VMs. */
export async function apply(
  client: ControlClient,
  output: Output,
  path: string,
  dryRun: boolean,
): Promise<void> {
  const tables = readTargets(path);
  const vms = await client.list();
  const changed: VmView[] = [];
  const unchanged: string[] = [];
  const errors: string[] = [];
  const one = async (vm: VmView): Promise<void> => {
    const own = targetsOf(tables, vm.name);
    if (own === null) return;
    try {
      const steps = await stepsFor(client, vm, own);
      for (const step of steps) {
        const now = dryRun ? step.would : await step.act();
        changed.push(now);
        if (!output.json)
          for (const line of step.words(now)) output.print(dryRun ? `would be: ${line}` : line);
      }
      if (steps.length === 0) unchanged.push(vm.name);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      errors.push(`${printable(vm.name)}: ${error.message}`);
    }
  };
  await Promise.all(vms.map(one));
  const unmatched = tables.filter((table) => vms.every(({ name }) => targetsOf([table], name) === null));
  const names = new Set(changed.map(({ name }) => name));
  if (output.json) output.document({ changed, unchanged, unmatched: unmatched.map(({ match }) => match) });
  else {
    for (const { match } of unmatched) output.print(`no VM matches ${JSON.stringify(printable(match))}`);
    const would = dryRun ? 'would be changed' : 'changed';
    output.print(`${count(names.size, 'VM')} ${would}, ${unchanged.length} as the file has them`);
  }
  if (errors.length > 0)
    throw new ControlError(409, passedOn(`${count(errors.length, 'VM')} refused: ${errors.join('; ')}`));
}

async function stepsFor(client: ControlClient, vm: VmView, own: VmTargets): Promise<Step[]> {
  const steps: Step[] = [];
  for (const wish of own.targets) {
    const step = await targetStep(client, vm, wish);
    if (step !== null) steps.push(step);
  }
  const { limits } = own;
  if (limits !== null && !holds(vm, limits)) {
    steps.push({
      would: vm,
      act: () => client.setLimits(vm.name, limits),
      words: (now) => [`${printable(vm.name)}: limits ${limitWords(limits)}`, ...indented(now)],
    });
  }
  return steps;
}

/** Null: the order holds already. */
async function targetStep(client: ControlClient, vm: VmView, wish: TargetWish): Promise<Step | null> {
  const target = resolved(wish, vm);
  const would = await client.tryTarget(vm.name, target);
  if (sameOrder(vm, would, target)) return null;
  return {
    would,
    act: () => client.setTarget(vm.name, target),
    words: (now) => [targetWords(now, target)],
  };
}

/** Whether an operator ordered the same before, and the target is the same by it. */
function sameOrder(before: VmView, after: VmView, target: TargetRequest): boolean {
  const order = 'cacheLimitBytes' in target ? 'cache-limit' : 'target';
  const says = ({ orders }: VmView): string | undefined =>
    orders.find((one) => one.order === order && one.by === 'operator')?.says;
  const of = ({ balloon, cache }: VmView): number | undefined =>
    (order === 'target' ? balloon : cache)?.targetBytes;
  return says(before) === says(after) && of(before) === of(after);
}

/** Whether the limits are ordered that way; one that is to be restored is ordered by nobody. */
function holds({ limits }: VmView, asked: LimitRequest): boolean {
  return LIMIT_NAMES.every((name) => {
    const word = asked[name];
    return word === undefined || limits[name] === (word === 'restore' ? null : word);
  });
}

function limitWords(limits: LimitRequest): string {
  return Object.entries(limits)
    .map(([name, word]) => `${name} ${typeof word === 'number' ? formatSize(word) : word}`)
    .join(', ');
}

function indented(vm: VmView): string[] {
  return cgroupLines(vm).map((line) => `  ${line}`);
}
