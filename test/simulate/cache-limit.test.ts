// What page cache balloons cost guests on a host with room, and what they bring one that becomes full.
import t from 'tap';
import { MOVABLE, SELF_SIZED, TAKEABLE } from '../../src/policy/inputs.js';
import { PolicySettings } from '../../src/policy/settings.js';
import { HostModel } from '../../src/simulate/host-model.js';
import { SimulatedGovernor } from '../../src/simulate/planners.js';

const GIB = 2 ** 30;
const HOST_BYTES = 64 * GIB;
const RAM_BYTES = 8 * GIB;
const USED_BYTES = 2 * GIB;
const STEP_SECONDS = 5;
const HOUR = 3600;

/** A host with as many VMs of 8 GiB, a quarter of them gold, that use 2 GiB each and read files all the time. */
class Fleet {
  readonly #demand: { readonly ramBytes: Float64Array; readonly wantBytes: Float64Array };
  readonly #governor: SimulatedGovernor;
  readonly host: HostModel;
  #now = 0;
  /** Changes of cache limits in the last run. */
  moves = 0;

  constructor(vms: number) {
    const settings = new PolicySettings({});
    const all = (bytes: number): Float64Array => new Float64Array(vms).fill(bytes);
    this.#demand = { ramBytes: all(RAM_BYTES), wantBytes: all(USED_BYTES) };
    const names = Array.from({ length: vms }, (_, n) => `vm-${n}`);
    const bandOf = (row: number): number => (row % 4 === 0 ? 0 : 2);
    this.host = new HostModel(this.#demand, HOST_BYTES, names, bandOf, settings);
    this.host.table.flags.fill(MOVABLE | TAKEABLE | SELF_SIZED);
    this.#governor = new SimulatedGovernor('balloond', this.host, settings.config(HOST_BYTES), ({ kind }) => {
      if (kind === 'cache-limit') this.moves++;
    });
  }

  run(seconds: number, wantBytes = USED_BYTES): void {
    this.#demand.wantBytes.fill(wantBytes);
    this.moves = 0;
    for (const end = this.#now + seconds; this.#now < end; this.#now += STEP_SECONDS) {
      this.host.step(STEP_SECONDS);
      this.#governor.tick(this.#now);
    }
  }

  /** The page cache of guests of this band on average, as a share of all memory that they do not use. */
  cacheShare(band: number): number {
    const { currentBytes, band: bands, count } = this.host.table;
    const rows = Array.from({ length: count }, (_, row) => row).filter((row) => bands[row] === band);
    const cache = rows.reduce(
      (sum, row) => sum + (currentBytes[row] ?? 0) - (this.#demand.wantBytes[row] ?? 0),
      0,
    );
    return cache / rows.length / (RAM_BYTES - (this.#demand.wantBytes[0] ?? 0));
  }

  get availableShare(): number {
    return this.host.availableBytes / HOST_BYTES;
  }

  get stallSeconds(): number {
    return this.host.stallSeconds.reduce((sum, seconds) => sum + seconds, 0);
  }
}

void t.test('on a host with room, guests keep all of their page cache', (t) => {
  const fleet = new Fleet(4);
  fleet.run(3 * HOUR);
  t.ok(fleet.availableShare > 0.3);
  t.ok(fleet.cacheShare(0) > 0.99 && fleet.cacheShare(2) > 0.99);
  t.equal(fleet.moves, 0);
  t.end();
});

void t.test(
  'on a host that fills up, the lowest band gives its page cache first, and nothing swings',
  (t) => {
    const fleet = new Fleet(12);
    fleet.run(3 * HOUR);
    t.ok(
      fleet.availableShare > 0.2 && fleet.availableShare < 0.25,
      `${fleet.availableShare} of the host are available`,
    );
    t.ok(fleet.cacheShare(0) > 0.99, `gold keeps ${fleet.cacheShare(0)} of its page cache`);
    t.ok(fleet.cacheShare(2) > 0.1 && fleet.cacheShare(2) < 0.6, `bronze keeps ${fleet.cacheShare(2)}`);
    fleet.run(HOUR);
    t.ok(fleet.moves <= 12, `${fleet.moves} changes of limits in an hour of constant load`);

    // All use 4 of 8 GiB: with the host's own part, 52 of 64.
    fleet.run(HOUR, 4 * GIB);
    t.ok(fleet.cacheShare(2) < 0.05, `bronze keeps ${fleet.cacheShare(2)}`);
    t.equal(fleet.host.oomSeconds, 0);
    t.ok(fleet.availableShare >= 0.1);

    fleet.run(3 * HOUR, GIB);
    t.ok(fleet.cacheShare(0) > 0.99 && fleet.cacheShare(2) > 0.13, `it is back: ${fleet.cacheShare(2)}`);
    t.ok(fleet.availableShare > 0.2);
    t.end();
  },
);
