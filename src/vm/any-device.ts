/** A device of a VM as its Vm, views, metrics and the policy know it, whichever way the daemon moves it. Sizes are bytes. */
import type { BalloonView, VmView } from '../../protocol/control/schema.js';
import type { VmMeters } from '../ops/vm-meters.js';
import type { Absence } from './absence.js';
import type { Diagnosis } from './diagnosis.js';
import type { DeviceFigures } from './figures.js';
import { inOrder, type AnyKind, type Part } from './kinds.js';
import type { DeviceUse } from './limits-plan.js';
import type { TargetBy } from './targets.js';

export interface AnyDevice {
  readonly kind: AnyKind;
  readonly part: Part;
  /** The name of the device in messages. A VM may have one of each kind. */
  readonly words: string;
  readonly socketPath: string | null;
  /** The features that the driver acked, by their names. */
  readonly features: readonly string[];
  readonly meters: VmMeters;
  /** Null: it is not looked for pages that came back. */
  readonly absence: Absence | null;
  /** What is wrong with the device or with the limits of its VM; null: nothing. */
  readonly diagnosis: Diagnosis | null;
  /** The part of a view that costs little. */
  readonly figures: DeviceFigures;
  /** Seconds between two times that the guest is asked for statistics; 0: it is not asked. */
  statsIntervalSeconds: number;
  /** The regions that the VMM shares; 0: none yet, or none ever. The part of them that can go back to the host. */
  readonly sharedBytes: number;
  readonly discardableBytes: number;
  /** The guest memory that is on the host now. */
  readonly allocatedBytes: number;
  /** How long the discard that is under way has been, in milliseconds; 0 when there is none. */
  readonly discardingMs: number;
  /** The memory that the guest says it has, its balloon included; null: it has not said. */
  readonly toldBytes: number | null;
  /** The same by the word of the VMM, where it says that. */
  readonly vmmBytes?: number;
  /** The page cache balloon that its driver has on the same device; null: none. */
  readonly within: AnyDevice | null;
  /** Queues of a VMM that has too few for a page cache balloon on this device; null: enough, or that is not known. */
  readonly queuesLacking?: VmView['queuesLacking'];
  /** Called when the guest says another size of its balloon. */
  onActual: (() => void) | null;
  /** The device in the control API. */
  balloonView(): BalloonView;
  guestUse(): DeviceUse;
  setTarget(bytes: number, by: TargetBy): void;
  /** The policy has the target follow the working set of the guest; `why` is the end of a sentence. */
  setSize(bytes: number, why: string): void;
  /** Tells the guest of its target again. */
  remind(): void;
  /** Resolves when it is in effect, and no discard under way if it is to stop them. */
  setInhibited(reason: string | null): Promise<void>;
  /** Resolves false where no statistics came within that time. */
  refreshStats(timeoutMs: number): Promise<boolean>;
  /** Writes down what the next daemon needs. */
  save(): void;
  close(): void;
}

/** The device, and the page cache balloon that is within it. */
export function withPart(device: AnyDevice): AnyDevice[] {
  return device.within === null ? [device] : [device, device.within];
}

/** Devices in the order of their table, with those that are within them. */
export function withParts(devices: readonly AnyDevice[]): readonly AnyDevice[] {
  if (devices.every(({ within }) => within === null)) return devices;
  return inOrder(devices.flatMap((device) => withPart(device)));
}
