// Both ring formats from the device's side, against the driver's side, over memory they share.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { duplicateFd } from '../../src/os/fd.js';
import { GuestMemory, type GuestSlice } from '../../src/memory/guest-memory.js';
import type { Chain } from '../../src/virtqueue/chain.js';
import { PackedQueue } from '../../src/virtqueue/packed-queue.js';
import type { Queue } from '../../src/virtqueue/queue.js';
import { SplitQueue } from '../../src/virtqueue/split-queue.js';
import { GuestRam } from '../support/guest-ram.js';
import { PackedRingDriver } from '../support/packed-ring-driver.js';
import { RingDriver } from '../support/ring-driver.js';

const MEMORY_BYTES = 2 ** 15;
const WRAP = 0x8000;
const FORMATS = ['split', 'packed'] as const;
type Format = (typeof FORMATS)[number];

interface Options {
  size?: number;
  eventIdx?: boolean;
  /** Split: where both indexes begin. */
  startAt?: number;
}

class Rig {
  readonly ring: RingDriver | PackedRingDriver;
  /** Guest addresses that the device said it wrote. */
  readonly logged: { gpa: number; lenBytes: number }[] = [];
  queue: Queue;
  readonly #ram = new GuestRam([{ gpa: 0, lenBytes: MEMORY_BYTES }]);
  readonly #memory = new GuestMemory();
  readonly #format: Format;
  readonly #options: Options;

  constructor(format: Format, options: Options = {}) {
    this.#format = format;
    this.#options = options;
    const { size = 8, eventIdx = false, startAt = 0 } = options;
    const place = { size, gpa: 0, eventIdx };
    if (format === 'packed') this.ring = new PackedRingDriver(this.#ram, place);
    else {
      this.ring = new RingDriver(this.#ram, place);
      this.ring.startAt(startAt);
    }
    const { file, userAddress } = this.#ram.find(0, MEMORY_BYTES);
    this.#memory.add(
      { gpa: 0n, sizeBytes: BigInt(MEMORY_BYTES), userAddr: userAddress, mmapOffset: 0n },
      duplicateFd(file.fd),
    );
    this.queue = this.#open(this.ring.initialBase);
  }

  /** As after a pause of the VM: the queue resumes at its base. */
  reopen(base = this.queue.base): void {
    this.queue.close();
    this.queue = this.#open(base);
  }

  bytes(): Uint8Array {
    return this.#ram.read(0, MEMORY_BYTES);
  }

  /** Chain by chain as the device serves it; returns how many calls the driver wanted. */
  serve(limit = Infinity): { chains: Chain[]; calls: number } {
    const chains: Chain[] = [];
    let calls = 0;
    for (let chain = this.queue.pop(); chain !== null; chain = this.queue.pop()) {
      chains.push(chain);
      this.queue.addUsed(chain, 0);
      if (this.queue.publish()) calls++;
      if (chains.length === limit) break;
    }
    return { chains, calls };
  }

  /** The driver wants a call when `count` more chains of one descriptor have come back. */
  callAfter(count: number): void {
    const { ring } = this;
    if (ring instanceof RingDriver) ring.writeUsedEvent((ring.readUsedIndex() + count - 1) & 0xffff);
    else {
      const position = this.#done + count - 1;
      const wrap = Math.floor(position / ring.size) % 2 === 0 ? WRAP : 0;
      ring.writeDriverEvent((position % ring.size) | wrap, 2);
    }
  }

  /** Chains of one descriptor that came back. */
  #done = 0;
  collect(): number {
    const count = this.ring.collectUsed().length;
    this.#done += count;
    return count;
  }

  close(): void {
    this.queue.close();
    this.ring.close();
    this.#memory.close();
    this.#ram.close();
  }

  #open(base: number): Queue {
    const { size, areas } = this.ring;
    const part = (gpa: number, lenBytes: number): GuestSlice => {
      const slice = this.#memory.resolveUser(this.#ram.userAddress(gpa, lenBytes), lenBytes);
      if (slice === undefined) throw new Error('the ring is outside memory');
      return slice;
    };
    const packed = this.#format === 'packed';
    const starts = { descriptors: areas.descriptorGpa, device: areas.deviceGpa };
    const layout = {
      size,
      position: new Uint32Array(2).fill(base),
      memory: this.#memory,
      eventIdx: this.#options.eventIdx ?? false,
      indirect: true,
      descriptors: part(areas.descriptorGpa, 16 * size),
      driver: part(areas.driverGpa, packed ? 4 : 6 + 2 * size),
      device: part(areas.deviceGpa, packed ? 4 : 6 + 8 * size),
      onWrite: (area: 'descriptors' | 'device', offset: number, lenBytes: number) => {
        this.logged.push({ gpa: starts[area] + offset, lenBytes });
      },
    };
    return packed ? new PackedQueue(layout) : new SplitQueue(layout);
  }
}

function withRig<T>(format: Format, options: Options, test: (rig: Rig) => T): T {
  const rig = new Rig(format, options);
  try {
    return test(rig);
  } finally {
    rig.close();
  }
}

const step = fc.oneof(
  fc.record({
    kind: fc.constant('add' as const),
    buffers: fc.array(fc.record({ gpa: fc.nat(2 ** 30), len: fc.nat(5000), writable: fc.boolean() }), {
      minLength: 1,
      maxLength: 4,
    }),
    indirect: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('pop' as const), writtenBytes: fc.nat(9) }),
  fc.record({ kind: fc.constant('publish' as const) }),
  fc.record({ kind: fc.constant('reopen' as const) }),
);

for (const format of FORMATS) {
  void t.test(`${format}: chains come out as they went in, and go back in order, over many laps`, (t) => {
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 30, maxLength: 150 }),
        fc.constantFrom(0, 65530, 65535),
        fc.boolean(),
        (steps, startAt, eventIdx) =>
          withRig(format, { startAt, eventIdx, size: 8 }, (rig) => {
            const waiting: { head: number; buffers: unknown }[] = [];
            const taken: { head: number; len: number }[] = [];
            for (const action of steps) {
              if (action.kind === 'add') {
                const { buffers, indirect } = action;
                let head: number;
                try {
                  head = rig.ring.add(buffers, { indirect });
                } catch {
                  continue; // the ring is full
                }
                waiting.push({
                  head,
                  buffers: buffers.map(({ gpa, len, writable }) => ({ gpa, lenBytes: len, writable })),
                });
              } else if (action.kind === 'pop') {
                const chain = rig.queue.pop();
                const wanted = waiting.shift();
                if ((chain === null) !== (wanted === undefined)) return false;
                if (chain === null || wanted === undefined) continue;
                if (chain.id !== wanted.head) return false;
                if (!isDeepStrictEqual(chain.segments, wanted.buffers)) return false;
                rig.queue.addUsed(chain, action.writtenBytes);
                taken.push({ head: chain.id, len: action.writtenBytes });
              } else {
                rig.queue.publish();
                const used = rig.ring.collectUsed();
                if (!isDeepStrictEqual(used, taken.splice(0))) return false;
                if (action.kind === 'reopen') rig.reopen();
              }
            }
            return true;
          }),
      ),
      { numRuns: 150 },
    );
    t.end();
  });

  for (const startAt of format === 'split' ? [0, 65500] : [0]) {
    void t.test(`${format}: EVENT_IDX calls come when asked for, from index ${startAt}`, (t) => {
      for (const every of [1, 2, 3, 5, 7]) {
        const calls = withRig(format, { eventIdx: true, startAt }, (rig) => {
          let sum = 0;
          rig.callAfter(every);
          for (let n = 1; n <= 210; n++) {
            rig.ring.add([{ gpa: 0, len: 1 }]);
            const { calls } = rig.serve();
            if (calls !== (n % every === 0 ? 1 : 0)) t.fail(`chain ${n}, every ${every}`);
            sum += calls;
            rig.collect();
            if (calls > 0) rig.callAfter(every);
          }
          return sum;
        });
        t.equal(calls, 210 / every);
      }
      t.end();
    });

    void t.test(`${format}: one call for a batch that passes the event, from index ${startAt}`, (t) =>
      withRig(format, { eventIdx: true, startAt }, (rig) => {
        for (let batch = 0; batch < 40; batch++) {
          rig.callAfter(1 + (batch % 6));
          for (let n = 0; n < 6; n++) rig.ring.add([{ gpa: 0, len: 1 }]);
          for (let chain = rig.queue.pop(); chain !== null; chain = rig.queue.pop()) {
            rig.queue.addUsed(chain, 0);
          }
          if (!rig.queue.publish()) t.fail(`batch ${batch}`);
          t.equal(rig.queue.publish(), false, 'nothing new, no call');
          if (rig.collect() !== 6) t.fail('lost');
        }
        t.end();
      }),
    );
  }

  void t.test(`${format}: without EVENT_IDX the flags decide on calls`, (t) =>
    withRig(format, {}, (rig) => {
      for (const wanted of [true, false, true]) {
        if (wanted) rig.ring.enableCalls();
        else rig.ring.disableCalls();
        for (let n = 0; n < 5; n++) rig.ring.add([{ gpa: 0, len: 1 }]);
        t.equal(rig.serve().calls, wanted ? 5 : 0);
        rig.ring.collectUsed();
      }
      t.end();
    }),
  );

  for (const eventIdx of [false, true]) {
    void t.test(`${format}: kicks are wanted only when armed${eventIdx ? ', by EVENT_IDX' : ''}`, (t) =>
      withRig(format, { eventIdx, startAt: 65530 }, (rig) => {
        const { ring } = rig;
        for (let lap = 0; lap < 30; lap++) {
          t.equal(rig.queue.armNotify(), false, 'nothing there yet');
          ring.add([{ gpa: 0, len: 1 }]);
          t.equal(ring.kick(), true, 'armed');
          rig.queue.disarmNotify();
          ring.add([{ gpa: 0, len: 1 }]);
          t.equal(ring.kick(), false, 'it is at work');
          ring.add([{ gpa: 0, len: 1 }]);
          t.equal(rig.serve(2).chains.length, 2);
          t.equal(rig.queue.armNotify(), true, 'one came in between');
          t.equal(rig.serve().chains.length, 1);
          ring.collectUsed();
          // Its kick is the one that armNotify() stands for.
          ring.kick();
        }
        t.end();
      }),
    );
  }

  void t.test(`${format}: a chain that is held is seen again after the next start`, (t) =>
    withRig(format, { startAt: 65535 }, (rig) => {
      const { ring } = rig;
      for (let lap = 0; lap < 20; lap++) {
        const head = ring.add([{ gpa: 0, len: 1 }]);
        t.equal(rig.queue.pop()?.id, head);
        t.equal(rig.queue.pop(), null);
        rig.reopen();
        const again = rig.queue.pop();
        t.equal(again?.id, head);
        if (again === null) continue;
        rig.queue.addUsed(again, 0);
        rig.queue.publish();
        t.equal(ring.collectUsed().length, 1);
      }
      t.end();
    }),
  );

  void t.test(`${format}: what the device writes is what it says it wrote`, (t) => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        (lengths, eventIdx) =>
          withRig(format, { eventIdx }, (rig) =>
            lengths.every((length) => {
              for (let n = 0; n < 2; n++) {
                rig.ring.add(Array.from({ length }, () => ({ gpa: 0, len: 1, writable: true })));
              }
              rig.logged.length = 0;
              const before = rig.bytes();
              rig.queue.disarmNotify();
              rig.serve();
              rig.queue.armNotify();
              const after = rig.bytes();
              rig.ring.collectUsed();
              const covered = new Set(
                rig.logged.flatMap(({ gpa, lenBytes }) =>
                  Array.from({ length: lenBytes }, (_, n) => gpa + n),
                ),
              );
              return before.every((byte, at) => byte === after[at] || covered.has(at));
            }),
          ),
      ),
      { numRuns: 20 },
    );
    t.end();
  });
}

void t.test('packed: a base in the middle of a lap, with and without its upper half', (t) => {
  for (const upper of [true, false]) {
    withRig('packed', {}, (rig) => {
      for (let n = 0; n < 11; n++) {
        rig.ring.add([{ gpa: 0, len: 1 }]);
        rig.serve();
        rig.ring.collectUsed();
      }
      t.equal(rig.queue.base, 0x00030003, 'index 3, in the second lap');
      const { base } = rig.queue;
      const head = rig.ring.add([{ gpa: 0, len: 1 }]);
      rig.reopen(upper ? base : base & 0xffff);
      t.equal(rig.serve().chains[0]?.id, head);
      t.equal(rig.ring.collectUsed().length, 1);
    });
  }
  t.end();
});
