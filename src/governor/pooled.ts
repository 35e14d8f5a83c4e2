/** VMs whose memory is in a pool of huge pages, of which a guest gives back whole pages or nothing. */
import { formatSize } from '../../protocol/control/size.js';
import { poolWords } from '../policy/words.js';
import type { PolicySettings } from '../policy/settings.js';
import type { Measured } from './governed-vm.js';

/** From this part of its RAM in the balloon on, a guest can be seen to give whole pages or parts of them. */
const SEEN_SHARE = 1 / 16;
/** The pool is to get back so much of the balloon. */
const LEAST_RETURN = 1 / 2;

/** The reason why the policy takes nothing from a VM in a pool, as the end of a sentence; null: the policy may take. */
export function keptInPool(
  { figures: { pool, actualBytes }, ramBytes, allocatedBytes }: Measured,
  { sharePools }: Pick<PolicySettings, 'sharePools'>,
): string | null {
  if (pool === null) return null;
  const where = poolWords(pool.pageBytes);
  if (!sharePools)
    return `its memory is in ${where}, which VMs share only with share-pools = true in [policy]`;
  if (!pool.discards)
    return `its memory is in ${where}, and its driver need not tell before it uses memory again (discard-untold-huge-pages)`;
  const returned = Math.max(0, ramBytes - allocatedBytes);
  if (actualBytes >= SEEN_SHARE * ramBytes && returned < LEAST_RETURN * actualBytes)
    return `of ${formatSize(actualBytes)} in its balloon, ${where} got ${formatSize(returned)}, because only whole pages go back`;
  return null;
}
