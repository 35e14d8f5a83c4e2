/** Orders that are refused, and what is said then. */
import { refusal, refusalOf, type RefusalText } from '../../protocol/control/refusal.js';
import { formatSize } from '../../protocol/control/size.js';
import { RefusedError } from '../control/fleet.js';
import type { DeviceKind } from './kinds.js';

/** Of a VM without a device of this kind. */
const MISSING: Readonly<Record<DeviceKind, RefusalText>> = {
  balloon: refusal(
    'has a page cache balloon only',
    'set its --cache-limit, or give the VM a balloon too (virtio-id=5)',
  ),
  'cache-balloon': refusal(
    'has no page cache balloon',
    'connect one (virtio-id=13) to a socket with device = "cache-balloon"',
  ),
};

export function noDevice(name: string, kind: DeviceKind): RefusedError {
  return new RefusedError(refusalOf(name, MISSING[kind]));
}

export function tooMuch(name: string, bytes: number, ramBytes: number): RefusedError {
  const ram = formatSize(ramBytes);
  return new RefusedError(
    refusal(`${name} has ${ram} of memory, so ${formatSize(bytes)} is too much`, `ask for ${ram} at most`),
  );
}

/** `reason`: of the configuration. */
export function inhibitedForGood(name: string, reason: string): RefusedError {
  return new RefusedError(
    refusal(
      `the configuration inhibits ${name} (${reason})`,
      'set no inhibit in its [[vm]], then run balloonctl reload',
    ),
  );
}

export function noStatistics(name: string): RefusedError {
  return new RefusedError(
    refusal(
      `${name} has no statistics`,
      'load a driver in the guest that acks VIRTIO_BALLOON_F_STATS_VQ, or offer that feature in the configuration',
    ),
  );
}

export function noFreshStatistics(name: string, timeoutMs: number): RefusedError {
  return new RefusedError(
    refusal(
      `${name} did not send statistics within ${timeoutMs / 1000} s`,
      `see \`balloonctl show ${name}\` for its state`,
    ),
  );
}
