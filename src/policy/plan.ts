/**
 * The policy of balloond, as docs/policy.md tells it. The daemon (src/governor) and the simulator call BandPlanner.plan()
 * at each tick. One plan goes through the files of this folder in this order: facts (each VM and the host), then one turn
 * of take, give and force, which leaves actions; share divides an amount among VMs, and state is remembered until the
 * next tick. The property that proves each rule is in test/policy/plan.property.test.ts:
 * - No VM falls below its floor or rises above its ceiling.
 * - Memory that is given is there: over the reserve, or, down to half of the reserve, on its way from other VMs or for a guest that
 *   would end programs.
 * - Idle memory goes first, the lowest band first, then memory in use, the lowest band first; a guest that stalls gives
 *   only to a higher band, or when half of the reserve is gone.
 * - A guest whose driver gives nothing back on OOM keeps what it uses, and some headroom.
 * - By will first: force follows after the grace time, rung by rung, and is undone in reverse.
 * - The host is filled up to its goal, and gives from memory beyond that: a constant load moves nothing.
 * - A guest with a page cache balloon keeps its page cache while the host has room, and gives down to its floor by itself when the
 *   host is short; it takes back by itself. Its target is a lower limit, and
 *   goes beyond the memory that the guest shed or stays where it is. A guest that has no other balloon is asked for
 *   nothing: it gives the memory that it is expected to give by itself, or by force.
 */
import { HOST } from './action.js';
import { Columns } from './columns.js';
import { Facts } from './facts.js';
import { climb } from './force.js';
import { handBack, refund, relieve } from './give.js';
import type { HostReading, PolicyConfig, VmTable } from './inputs.js';
import type { Plan, Planner } from './planner.js';
import type { PolicyState } from './state.js';
import { lackingBytes, lowerToCeilings, take, type Receiver } from './take.js';
import { limitCaches } from './cache-limit.js';
import { ask, NO_BAND, Turn } from './turn.js';

export class BandPlanner implements Planner {
  readonly #columns = new Columns();

  plan(host: HostReading, vms: VmTable, config: PolicyConfig, previous: PolicyState): Plan {
    const facts = new Facts(host, vms, config, previous, this.#columns);
    const { short } = facts;
    if (facts.quiet)
      return { actions: [], next: short === previous.short ? previous : { ...previous, short } };
    const turn = new Turn(facts);

    // Guests with a page cache balloon give and take memory by themselves, and no VM has more than its ceiling.
    limitCaches(turn);
    if (facts.overCeiling) lowerToCeilings(turn);

    // A guest that is short gets memory at once, the highest band first; lower bands and idle memory pay for it.
    for (let band = 0; band < config.bands.length; band++)
      if ((facts.bandWants[band] ?? 0) > 0) relieve(turn, band);

    // The host has less memory available than its reserve: VMs fill it up to its goal.
    if (short && turn.spareBytes < 0) {
      const itself: Receiver = { row: HOST, band: NO_BAND, urgency: facts.urgency };
      turn.spareBytes += take(turn, -turn.spareBytes, itself);
    }

    // The host has memory left over: balloons deflate.
    if (facts.refundable) refund(turn);

    for (let row = 0; row < vms.count; row++) ask(turn, row);
    for (let row = 0; row < vms.count; row++) handBack(turn, row);

    // A guest does not yield the memory that it owes: force. It ends when the guest yields or nobody needs its memory.
    for (let row = 0; row < vms.count; row++) climb(turn, row);
    return { ...turn.plan, lackingBytes: lackingBytes(turn) };
  }
}
