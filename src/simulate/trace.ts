/**
 * Replays the readings that a daemon recorded: each guest wants the memory that it used then, and a policy decides anew.
 * Memory that a guest would have wanted beyond that is in no trace.
 */
import { refusal, RefusingError } from '../../protocol/control/refusal.js';
import { TRACE_FLAGS, TRACE_VERSION, type TraceLine, type TraceVm } from '../../protocol/policy-trace.js';
import type { Action } from '../policy/action.js';
import { FLAGS, LIMITABLE, MOVABLE, type VmTable } from '../policy/inputs.js';
import type { PolicySettings } from '../policy/settings.js';
import { HostModel } from './host-model.js';
import { SimulatedGovernor, type PolicyName } from './planners.js';
import { Tally, weightsOf, type Outcome } from './simulation.js';

/** The file is not a trace; the message says which line is wrong. */
class TraceError extends RefusingError {
  override readonly name = 'TraceError';
}

/** The lines of a trace, as the present version has them. Throws TraceError. */
export function parseTrace(text: string): TraceLine[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  if (lines.length < 2)
    throw new TraceError(refusal('a trace has at least two lines', 'let the daemon record for longer'));
  return lines.map((line, n) => {
    let value: Line | null;
    try {
      value = JSON.parse(line) as Line | null;
    } catch {
      throw new TraceError(refusal(`line ${n + 1} is not JSON`, 'give a file that a daemon recorded'));
    }
    const version = value?.version ?? 1;
    if (typeof version !== 'number' || version > TRACE_VERSION)
      throw new TraceError(
        refusal(
          `line ${n + 1} has version ${JSON.stringify(version)} of the format, and this program knows ${TRACE_VERSION} at most`,
          'run the balloonctl of the daemon that recorded it',
        ),
      );
    const whole =
      typeof value?.t === 'number' &&
      typeof value.totalBytes === 'number' &&
      value.totalBytes > 0 &&
      typeof value.availableBytes === 'number' &&
      Array.isArray(value.vms) &&
      value.vms.every((vm) => (version === 1 ? isTraceVm(vm) : isTraceVm(vm) && isWhole(vm)));
    if (!whole)
      throw new TraceError(
        refusal(`line ${n + 1} is no line of a trace`, 'give a file that a daemon recorded'),
      );
    return version === 1 ? upgraded(value as TraceLine) : (value as TraceLine);
  });
}

/** A line before it was looked at. */
type Line = Partial<Omit<TraceLine, 'version'>> & { version?: unknown };

/** Facts that version 1 does not have: each VM counted as one with a traditional balloon that may be moved. */
const UNTOLD = {
  flags: ['movable', 'takeable'],
  cacheLimitBytes: 0,
  cachedBytes: 0,
  overheadBytes: 0,
} as const satisfies Partial<TraceVm>;

function upgraded(line: TraceLine): TraceLine {
  return { ...line, version: TRACE_VERSION, vms: line.vms.map((vm) => ({ ...vm, ...UNTOLD })) };
}

function isTraceVm(value: unknown): value is object {
  const { name, ramBytes, actualBytes, guestAvailableBytes, currentBytes } = (value ??
    {}) as Partial<TraceVm>;
  const known = (bytes: unknown): boolean => bytes === null || typeof bytes === 'number';
  return (
    typeof name === 'string' &&
    typeof ramBytes === 'number' &&
    ramBytes > 0 &&
    typeof actualBytes === 'number' &&
    known(guestAvailableBytes) &&
    known(currentBytes)
  );
}

/** Whether the fields are there that came with version 2. */
function isWhole(vm: object): boolean {
  const { flags, targetBytes, cacheLimitBytes, overheadBytes } = vm as Partial<
    Record<keyof TraceVm, unknown>
  >;
  const sizes = [targetBytes, cacheLimitBytes, overheadBytes];
  return (
    Array.isArray(flags) &&
    flags.every((flag) => TRACE_FLAGS.some((known) => known === flag)) &&
    sizes.every((bytes) => typeof bytes === 'number' && bytes >= 0)
  );
}

export function simulateTrace(
  lines: readonly TraceLine[],
  policy: PolicyName,
  settings: PolicySettings,
  seen?: (nowSeconds: number, name: string, action: Action) => void,
): Outcome {
  const rams = new Map<string, number>();
  for (const { vms } of lines) for (const { name, ramBytes } of vms) rams.set(name, ramBytes);
  const names = [...rams.keys()];
  const rows = new Map(names.map((name, row) => [name, row]));
  const demand = { ramBytes: Float64Array.from(rams.values()), wantBytes: new Float64Array(names.length) };
  const bandOf = (row: number): number =>
    settings.entitlement(names[row] ?? '', demand.ramBytes[row] ?? 0).band;
  const [first] = lines;
  if (first === undefined)
    throw new TraceError(refusal('the trace is empty', 'let the daemon record for longer'));
  const host = new HostModel(demand, first.totalBytes, names, bandOf, settings);
  // The host's time may have been set back where one daemon recorded after another.
  const lasts = lines.map(({ t }, n) => Math.max(0, t - (lines[n - 1]?.t ?? t)));
  const allSeconds = lasts.reduce((sum, seconds) => sum + seconds, 0);
  const tally = new Tally(policy, weightsOf(settings), Math.max(1, allSeconds));
  let elapsed = 0;
  const config = settings.config(first.totalBytes);
  const governor = new SimulatedGovernor(policy, host, config, (action) =>
    seen?.(elapsed, names[action.row] ?? '', action),
  );
  for (const [n, { vms }] of lines.entries()) {
    const seconds = lasts[n] ?? 0;
    elapsed += seconds;
    host.table.ramBytes.fill(0);
    host.table.flags.fill(0);
    for (const vm of vms) {
      const row = rows.get(vm.name) ?? 0;
      setAsRecorded(host.table, row, vm);
      demand.wantBytes[row] = usedBytes(vm);
    }
    host.step(Math.min(3600, Math.max(0.001, seconds)));
    tally.step(host, elapsed, governor.tick(first.t + elapsed));
  }
  tally.end(host);
  return tally.outcome();
}

/** The facts of a VM that a replay takes over; a policy decides the rest anew, where it may move the VM. */
function setAsRecorded(table: VmTable, row: number, vm: TraceVm): void {
  const flags = vm.flags.reduce((bits, flag) => bits | FLAGS[flag], 0);
  table.ramBytes[row] = vm.ramBytes;
  // The model knows no force.
  table.flags[row] = flags & ~LIMITABLE;
  table.overheadBytes[row] = vm.overheadBytes;
  table.slowness[row] = vm.slowness ?? 0;
  if ((flags & MOVABLE) !== 0) return;
  table.targetBytes[row] = vm.targetBytes;
  table.cacheLimitBytes[row] = vm.cacheLimitBytes;
}

/** The memory that the guest used then. */
function usedBytes({
  ramBytes,
  actualBytes,
  guestAvailableBytes,
  currentBytes,
  overheadBytes,
}: TraceVm): number {
  const usable = Math.max(0, ramBytes - actualBytes);
  const used =
    guestAvailableBytes === null
      ? (currentBytes ?? usable + overheadBytes) - overheadBytes
      : usable - guestAvailableBytes;
  return Math.max(0, Math.min(usable, used));
}
