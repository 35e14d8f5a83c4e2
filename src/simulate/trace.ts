/**
 * Replays what a daemon recorded: each guest wants what it used then, and a policy decides anew. What a guest would have
 * wanted beyond what it had is in no trace.
 */
import type { TraceLine, TraceVm } from '../../protocol/policy-trace.js';
import type { PolicySettings } from '../policy/settings.js';
import { HostModel } from './host-model.js';
import { SimulatedGovernor, type PolicyName } from './planners.js';
import { Tally, type Outcome } from './simulation.js';

/** The file is not a trace; the message says which line is wrong. */
export class TraceError extends Error {
  override readonly name = 'TraceError';
}

export function parseTrace(text: string): TraceLine[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  if (lines.length < 2)
    throw new TraceError('a trace has at least two lines: let the daemon record for longer');
  return lines.map((line, n) => {
    let value: Partial<TraceLine> | null;
    try {
      value = JSON.parse(line) as Partial<TraceLine> | null;
    } catch {
      throw new TraceError(`line ${n + 1} is not JSON: give a file that a daemon recorded`);
    }
    const whole =
      typeof value?.t === 'number' &&
      typeof value.totalBytes === 'number' &&
      value.totalBytes > 0 &&
      typeof value.availableBytes === 'number' &&
      Array.isArray(value.vms) &&
      value.vms.every(isTraceVm);
    if (!whole)
      throw new TraceError(`line ${n + 1} is no line of a trace: give a file that a daemon recorded`);
    return value as TraceLine;
  });
}

function isTraceVm(value: unknown): boolean {
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

export function simulateTrace(
  lines: readonly TraceLine[],
  policy: PolicyName,
  settings: PolicySettings,
): Outcome {
  const rams = new Map<string, number>();
  for (const { vms } of lines) for (const { name, ramBytes } of vms) rams.set(name, ramBytes);
  const names = [...rams.keys()];
  const rows = new Map(names.map((name, row) => [name, row]));
  const demand = { ramBytes: Float64Array.from(rams.values()), wantBytes: new Float64Array(names.length) };
  const bandOf = (row: number): number =>
    settings.entitlement(names[row] ?? '', demand.ramBytes[row] ?? 0).band;
  const [first] = lines;
  if (first === undefined) throw new TraceError('the trace is empty: let the daemon record for longer');
  const host = new HostModel(demand, first.totalBytes, names, bandOf, settings);
  // The host's time may have been set back where one daemon recorded after another.
  const lasts = lines.map(({ t }, n) => Math.max(0, t - (lines[n - 1]?.t ?? t)));
  const allSeconds = lasts.reduce((sum, seconds) => sum + seconds, 0);
  const tally = new Tally(policy, settings.bands.length, Math.max(1, allSeconds));
  const governor = new SimulatedGovernor(policy, host, settings.config(first.totalBytes));
  let elapsed = 0;
  for (const [n, { vms }] of lines.entries()) {
    const seconds = lasts[n] ?? 0;
    elapsed += seconds;
    demand.wantBytes.fill(0);
    for (const { name, ramBytes, actualBytes, guestAvailableBytes, currentBytes } of vms) {
      const usable = Math.max(0, ramBytes - actualBytes);
      const used = guestAvailableBytes === null ? (currentBytes ?? usable) : usable - guestAvailableBytes;
      demand.wantBytes[rows.get(name) ?? 0] = Math.max(0, Math.min(usable, used));
    }
    host.step(Math.min(3600, Math.max(0.001, seconds)));
    tally.step(host, elapsed, governor.tick(first.t + elapsed));
  }
  tally.end(host);
  return tally.outcome();
}
