/** The `ETag` of a VM: of what a request may change of it, so that the figures of its guest do not change it. */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { refusal } from '../../protocol/control/refusal.js';
import type { VmView } from '../../protocol/control/schema.js';
import { Problem } from './problem.js';

const LETTERS = 16;

export function etagOf({ name, orders, statsIntervalSeconds }: VmView): string {
  // The words of an order also say what it has to wait for; its time tells it from any other.
  const given = orders.map(({ order, by, since, says }) => [order, by, since ?? says]);
  const hash = createHash('sha256').update(JSON.stringify([name, given, statsIntervalSeconds]));
  return `"${hash.digest('hex').slice(0, LETTERS)}"`;
}

/** Throws Problem 412 where the request is for a VM whose orders are others. */
export function checkMatch({ headers }: IncomingMessage, view: () => VmView): void {
  const wanted = headers['if-match'];
  if (wanted === undefined || wanted.trim() === '*') return;
  const vm = view();
  const own = etagOf(vm);
  if (wanted.split(',').some((tag) => tag.trim() === own)) return;
  throw new Problem(
    412,
    refusal(
      `the orders for VM ${JSON.stringify(vm.name)} are not those of If-Match`,
      'ask for the VM again, and decide by its new ETag',
    ),
    { etag: own },
  );
}
