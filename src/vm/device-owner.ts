import type { StateFile } from '../memory/state-file.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import type { Turns } from '../vhost-user/turns.js';
import type { DeviceOptions } from './kinds.js';
import type { VmLimits } from './limits.js';
import type { VmRecord } from './record.js';
import type { Sizes } from './sizes.js';

/** The VM's part of what is written down of a device. */
export type VmWords = Pick<
  VmRecord,
  'inhibited' | 'manual' | 'forcedFrom' | 'wantedMemoryBytes' | 'booked' | 'limits'
>;

/** What a device asks of its VM, and tells it. */
export interface DeviceOwner<Device> {
  readonly name: string;
  readonly pid: number;
  /** Why nothing may be discarded; null: pages are discarded. */
  readonly inhibited: string | null;
  readonly pinnedBy: string | null;
  /** The memory of the guest; 0: it is not known yet. */
  readonly ramBytes: number;
  readonly sizes: Pick<Sizes, 'ramIsKnown' | 'leastBytes'>;
  readonly limits: Pick<VmLimits, 'problem'>;
  words(): VmWords;
  /** The guest is about to be allowed more. */
  allow(why: string, targetBytes?: number): void;
  /** The guest may use less. */
  settle(): void;
  /** A target is about to rise. */
  rises(): void;
  /** The VMM shares memory, or other memory than before. */
  memoryChanged(): void;
  /** The guest said how much memory it has. */
  memoryTold(): void;
  driverStarted(device: Device): void;
  closed(device: Device): void;
}

/** How a device is connected, and what it is served with. */
export interface DeviceIdentity {
  /** Path of the socket that the VMM connected to, where the configuration has something for it. */
  socketPath: string | null;
  options: DeviceOptions;
}

/** Where a device is written down, and what a daemon before this one wrote. */
export interface DeviceHandOver {
  keeper: FdKeeper;
  state: StateFile;
  found: VmRecord | null;
  /** Those it shares the event loop with, if not all of the process. */
  turns?: Turns;
}
