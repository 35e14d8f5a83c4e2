// The largest block that a driver may name: the same for the device, for the Linux driver with pages of any size, and on the page.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { decodeRange } from '../../../protocol/virtio/cache-balloon.js';

const ROOT = join(import.meta.dirname, '../../../..');
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const DRIVER = 'guest/virtio_balloon';

void t.test('the largest order of a block', (t) => {
  const order = Number(/#define MAX_WIRE_ORDER (\d+)/.exec(text(`${DRIVER}/wire.h`))?.[1]);
  t.match(text('docs/cache-balloon.md').replaceAll(/\s+/g, ' '), `an order n, from 0 to ${order},`);
  t.same(decodeRange(order, 0), { firstPfn: 0, pages: 2 ** order });
  t.equal(decodeRange(order + 1, 0), null);
  const told = /#define MAX_ORDER_TOLD \((.+)\)/.exec(text(`${DRIVER}/page_cache.c`))?.[1];
  t.equal(told, 'MAX_WIRE_ORDER - (PAGE_SHIFT - WIRE_SHIFT)');
  t.end();
});
