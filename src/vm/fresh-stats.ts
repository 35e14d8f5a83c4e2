import type { AnyDevice } from './any-device.js';
import { KINDS } from './kinds.js';
import { noFreshStatistics, noStatistics } from './refused-orders.js';

/**
 * Asks the guest of a VM for statistics, by its device; undefined: it has none. Throws RefusedError when the guest can send none, or
 * sends none within `timeoutMs`.
 */
export async function freshStats(
  name: string,
  device: AnyDevice | undefined,
  timeoutMs: number,
): Promise<void> {
  const needed = device === undefined ? null : KINDS[device.kind].statsFeature;
  if (needed !== null && device?.features.includes(needed) === false) throw noStatistics(name, needed);
  if (!((await device?.refreshStats(timeoutMs)) ?? false)) throw noFreshStatistics(name, timeoutMs);
}
