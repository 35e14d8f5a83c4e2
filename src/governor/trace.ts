/** The lines that the governor records of each tick, for the simulator. */
import { TRACE_FLAGS, TRACE_VERSION, type TraceVm } from '../../protocol/policy-trace.js';
import type { HostReading } from '../host/meminfo.js';
import { monotonicNow, msSince, wallNow } from '../os/clock.js';
import { FLAGS, type TableColumn, type VmTable } from '../policy/inputs.js';
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
      version: TRACE_VERSION,
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

/**
 * The field of a line for each column of a table, so that no column can be left out; the weight is in the settings, and how old and how
 * steady the word of a guest is follows from the lines before.
 */
const FIELDS = {
  ramBytes: 'ramBytes',
  minBytes: 'minBytes',
  maxBytes: 'maxBytes',
  targetBytes: 'targetBytes',
  actualBytes: 'actualBytes',
  cacheLimitBytes: 'cacheLimitBytes',
  cachedBytes: 'cachedBytes',
  availableBytes: 'guestAvailableBytes',
  freeBytes: 'guestFreeBytes',
  stallPercent: 'stallPercent',
  currentBytes: 'currentBytes',
  overheadBytes: 'overheadBytes',
  slowness: 'slowness',
} as const satisfies Record<
  Exclude<TableColumn, 'weight' | 'steadyBytes' | 'statsAgeSeconds'>,
  keyof TraceVm
>;
type Figures = Omit<TraceVm, 'name' | 'band' | 'flags'>;

function traceVm({ name }: GovernedVm, table: VmTable, row: number, settings: PolicySettings): TraceVm {
  const figures = Object.entries(FIELDS).map(([column, field]) => {
    const value = table[column as keyof typeof FIELDS][row] ?? NaN;
    return [field, Number.isNaN(value) ? null : value] as const;
  });
  return {
    name,
    band: bandName(settings, table.band[row] ?? 0),
    flags: TRACE_FLAGS.filter((flag) => ((table.flags[row] ?? 0) & FLAGS[flag]) !== 0),
    ...(Object.fromEntries(figures) as unknown as Figures),
  };
}
