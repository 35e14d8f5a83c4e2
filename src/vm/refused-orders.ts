/** Orders that are refused, and what is said then. */
import { refusal, refusalOf, type RefusalText } from '../../protocol/control/refusal.js';
import { formatLeast, formatMost, formatSize } from '../../protocol/control/size.js';
import type { TargetRequest } from '../../protocol/control/schema.js';
import { vmCommand } from '../../protocol/control/vm-command.js';
import { RefusedError } from '../control/fleet.js';
import { PARTS, type Part } from './kinds.js';
import { isSame } from './ram.js';
import { askedTarget, keptBytes } from './targets.js';

export function noDevice(name: string, part: Part): RefusedError {
  return new RefusedError(refusalOf(name, PARTS[part].missing));
}

/** Throws RefusedError where the guest, whose memory is known, has less than it is to give or keep, or would keep too little. */
export function refuseTarget(
  name: string,
  target: TargetRequest,
  { ramBytes, leastBytes }: { ramBytes: number; leastBytes: number },
): void {
  const { bytes } = askedTarget(target);
  const [ram, least] = [formatSize(ramBytes), formatLeast(leastBytes)];
  const forced = !('cacheLimitBytes' in target) && target.force === true;
  const mostBytes = 'balloonBytes' in target && !forced ? ramBytes - leastBytes : ramBytes;
  // Who asks for all of it means the size that the VMM was given.
  const isAll = 'memoryBytes' in target && isSame(bytes, ramBytes);
  if (bytes > ramBytes && !isAll) {
    throw new RefusedError(
      refusal(
        `${name} has ${ram} of memory, so ${formatSize(bytes)} is too much`,
        `ask for ${formatMost(mostBytes)} at most`,
      ),
    );
  }
  const kept = keptBytes(target, ramBytes);
  if (kept >= leastBytes) return;
  throw new RefusedError(
    refusal(
      `${name} would keep ${formatSize(kept)} of its ${ram}, in which no guest is known to live`,
      `set a target that leaves it ${least} at least, or give --force ("force": true in the API)`,
    ),
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

/** `why`: the end of a sentence on the VM. */
export function uninhibitable(name: string, why: RefusalText): RefusedError {
  return new RefusedError(refusalOf(name, why));
}

/** `needed`: the feature without which the driver of the guest sends none. */
export function noStatistics(name: string, needed: string): RefusedError {
  return new RefusedError(
    refusal(
      `${name} has no statistics`,
      `load a driver in the guest that acks ${needed}, offer that feature in the configuration, or take a VMM that does not hide the feature`,
    ),
  );
}

export function noFreshStatistics(name: string, timeoutMs: number): RefusedError {
  return new RefusedError(
    refusal(
      `${name} did not send statistics within ${timeoutMs / 1000} s`,
      `see \`${vmCommand('balloonctl show', name)}\` for its state`,
    ),
  );
}
