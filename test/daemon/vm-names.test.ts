// Names of VMs: the process and the UUID that a VM is known by, and the orders that end with a name that was made up.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { VmNames } from '../../src/daemon/vm-names.js';
import { OrderBook, readBook } from '../../src/vm/order-book.js';
import type { Orders } from '../../src/vm/orders.js';
import { HostTree } from '../support/host-tree.js';

const ORDER: Orders = { paused: { since: 0 as never } };

class Host {
  readonly vms = new Set<string>();
  readonly tree: HostTree;
  book = new OrderBook();
  names: VmNames;

  constructor(t: Test) {
    this.tree = new HostTree(t);
    this.names = this.#ofDaemon();
  }

  #ofDaemon(): VmNames {
    return new VmNames({ book: this.book, vms: this.vms, proc: this.tree.paths.proc });
  }

  /** Every VM is away, and the next daemon has the book. */
  nextDaemon(): void {
    this.vms.clear();
    const read = readBook(this.book.text());
    if (!('document' in read)) throw new Error(read.unreadable);
    this.book = new OrderBook(read.document);
    this.names = this.#ofDaemon();
  }

  comes(pid: number, wanted = 'web', uuid: string | null = null, comesAgain = true): string {
    this.tree.process(pid, `/vms/${pid}`);
    const name = this.names.choose({ wanted, pid, uuid, comesAgain });
    this.vms.add(name);
    return name;
  }

  ends(pid: number, name: string): void {
    this.vms.delete(name);
    rmSync(join(this.tree.folder, `proc/${pid}`), { recursive: true });
    this.names.tidy();
  }
}

void t.test('names stay with their processes, whichever comes first', (t) => {
  const host = new Host(t);
  t.same([host.comes(1), host.comes(2), host.comes(3, 'db')], ['web', 'web-2', 'db']);
  host.nextDaemon();
  t.same([host.comes(2), host.comes(4), host.comes(1)], ['web-2', 'web-3', 'web']);
  host.ends(1, 'web');
  t.same(host.comes(5), 'web', 'the name of a VM that ended is free');
  t.end();
});

void t.test('a name that was made up ends with its process, and so do its orders', (t) => {
  const host = new Host(t);
  t.same([host.comes(1), host.comes(2)], ['web', 'web-2']);
  host.book.change('web', ORDER);
  host.book.change('web-2', ORDER);
  host.ends(1, 'web');
  host.ends(2, 'web-2');
  t.same(host.book.names, ['web'], 'a VM that is switched off and on keeps its orders');
  t.same(host.book.named, []);
  t.notMatch(host.book.text(), /names/);
  t.end();
});

void t.test('a VM with a UUID has its made-up name and its orders again, and no other VM has', (t) => {
  const host = new Host(t);
  t.same([host.comes(1), host.comes(2, 'web', 'u-2')], ['web', 'web-2']);
  host.book.change('web-2', ORDER);
  host.ends(2, 'web-2');
  t.same(host.book.names, ['web-2']);
  t.same([host.comes(3), host.comes(4, 'web', 'u-4')], ['web-3', 'web-4']);
  t.same(host.comes(5, 'web', 'u-2'), 'web-2');
  host.book.change('web-2', {});
  host.ends(5, 'web-2');
  t.same(
    host.book.named.map(({ name }) => name),
    ['web', 'web-3', 'web-4'],
    'without an order nothing of it is kept',
  );
  t.end();
});

void t.test('a made-up name is not that of a VM with orders that is switched off', (t) => {
  const host = new Host(t);
  host.book.change('web-2', ORDER);
  t.same([host.comes(1, 'web', null, false), host.comes(2)], ['web', 'web-3']);
  t.same(host.comes(3, 'web-2'), 'web-2', 'which has them when it comes');
  t.end();
});

void t.test('a process that its parent has yet to ask after has ended', (t) => {
  const host = new Host(t);
  t.equal(host.comes(1), 'web');
  host.nextDaemon();
  host.tree.write('proc/1/stat', '1 (qemu) Z 1 1 1 0');
  t.equal(host.comes(2), 'web');
  t.equal(new Host(t).names.choose({ wanted: 'x', pid: 7, uuid: null, comesAgain: true }), 'x');
  t.end();
});
