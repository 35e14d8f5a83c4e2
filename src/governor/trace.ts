/** The lines that the governor records of each tick, for the simulator. */
import type { TraceVm } from '../../protocol/policy-trace.js';
import type { HostReading } from '../host/meminfo.js';
import { monotonicNow, msSince, wallNow } from '../os/clock.js';
import type { VmTable } from '../policy/inputs.js';
import type { PolicySettings } from '../policy/settings.js';
import { bandName } from './explain.js';
import type { GovernedVm } from './governed-vm.js';
import { PolicyRecorder } from './recorder.js';
import type { Troubles } from './troubles.js';

/** The trace that the settings ask for; null: none. */
export function traceOf(
  { record, recordMaxBytes: maxBytes, mode }: PolicySettings,
  troubles: Troubles,
): Trace | null {
  if (record === null || mode === 'off') return null;
  const failed = (why: string): void =>
    troubles.tell(
      'record',
      `the readings of the policy are not recorded: ${why}: make room, or set record in [policy] to another file`,
    );
  return new Trace(new PolicyRecorder(record, { maxBytes, failed }));
}

export class Trace {
  readonly #recorder: PolicyRecorder;
  readonly #begun = monotonicNow();
  readonly #begunWall = wallNow();

  constructor(recorder: PolicyRecorder) {
    this.#recorder = recorder;
  }

  /** Writes a line behind, where there is room for it. */
  write(host: HostReading, table: VmTable, vms: readonly GovernedVm[], settings: PolicySettings): void {
    this.#recorder.write({
      t: (this.#begunWall + msSince(this.#begun)) / 1000,
      totalBytes: host.totalBytes,
      availableBytes: host.availableBytes,
      vms: vms.map((vm, row) => traceVm(vm, table, row, settings)),
    });
  }

  /** Resolves when all lines are written, or are not going to be. */
  close(): Promise<void> {
    return this.#recorder.close();
  }
}

function traceVm({ name }: GovernedVm, table: VmTable, row: number, settings: PolicySettings): TraceVm {
  const known = (column: Float64Array): number | null => {
    const value = column[row] ?? NaN;
    return Number.isNaN(value) ? null : value;
  };
  return {
    name,
    band: bandName(settings, table.band[row] ?? 0),
    ramBytes: table.ramBytes[row] ?? 0,
    minBytes: table.minBytes[row] ?? 0,
    maxBytes: table.maxBytes[row] ?? 0,
    targetBytes: table.targetBytes[row] ?? 0,
    actualBytes: table.actualBytes[row] ?? 0,
    guestAvailableBytes: known(table.availableBytes),
    guestFreeBytes: known(table.freeBytes),
    stallPercent: known(table.stallPercent),
    currentBytes: known(table.currentBytes),
  };
}
