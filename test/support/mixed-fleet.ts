// Two VMs that balloond serves over vhost-user and two that it adopts over QMP, a gold and a bronze one of each, on a part of the host's
// memory that the policy keeps at its reserve: what a gold VM grows by, a bronze VM of the other kind gives.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TraceLine } from '../../protocol/policy-trace.js';
import { ControlClient } from '../../src/control/client.js';
import type { DaemonProcess } from './daemon.js';
import { eventually, PATIENCE_MS } from './deadline.js';
import { Guest } from './lab/guest.js';

const MIB = 2 ** 20;
const MEMORY_MIB = 512;
/** A bronze guest touched so much, and has it free again. */
const TOUCHED_MIB = 370;
/** So much of the memory is kept in reserve. Where half of that is gone, the policy takes from all bands. */
export const RESERVE_SHARE = 0.2;
/** A gold guest grows by so much more than what the host has beyond its reserve: less than half of that. */
export const LACKING_MIB = 100;
const INTERVAL_SECONDS = 0.5;

/**
 * Without free page reporting, which gives memory back that is free, and without DEFLATE_ON_OOM, with which Linux counts what is in the
 * balloon as its own.
 */
export const FLEET_CONFIG = `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ"]

[[qmp]]
path = "{folder}/*.qmp"

[[vm]]
match = "*"
stats-interval = 1

[policy]
mode = "auto"
memory = "1400M"
reserve = "${100 * RESERVE_SHARE}%"
interval = ${INTERVAL_SECONDS}
record = "{folder}/trace.ndjson"

[[policy.band]]
name = "gold"
match = ["gold-*"]
min = "40%"

[[policy.band]]
name = "bronze"
match = ["bronze-*"]
min = "25%"
`;

export const KINDS = ['served', 'adopted'] as const;
export type Kind = (typeof KINDS)[number];
export type Name = `${'gold' | 'bronze'}-${Kind}`;

/** What a guest and the host say of a VM, in bytes. */
export interface Said {
  /** All memory that the guest has, by its own word: what is in its balloon is not of it. */
  readonly guestTotal: number;
  /** The memory of the VM that is on the host, the VMM's own included. */
  readonly onHost: number;
}

/** One growth of a gold VM. */
export interface Shift {
  readonly gold: Name;
  readonly bronze: Name;
  readonly grownMib: number;
  readonly before: Readonly<Record<Name, Said>>;
  readonly after: Readonly<Record<Name, Said>>;
  /** From the moment at which the gold guest began to grow until the host had its reserve again. */
  readonly seconds: number;
  /** The readings of the policy meanwhile. */
  readonly looks: readonly TraceLine[];
  /** How often the policy took memory from each VM meanwhile, by name. */
  readonly took: ReadonlyMap<string, number>;
}

export class MixedFleet {
  readonly #daemon: DaemonProcess;
  readonly #client: ControlClient;
  readonly guests: Readonly<Record<Name, Guest>>;

  private constructor(daemon: DaemonProcess, guests: Record<Name, Guest>) {
    this.#daemon = daemon;
    this.#client = new ControlClient(daemon.controlPath);
    this.guests = guests;
  }

  /** Boots the guests of a daemon with FLEET_CONFIG, and waits until the host has its reserve. `booted`: of each guest, to end it. */
  static async boot(daemon: DaemonProcess, booted: (guest: Guest) => void): Promise<MixedFleet> {
    const client = new ControlClient(daemon.controlPath);
    // A guest that gives memory while it boots, or while it touches what it is to give, takes long for either.
    await client.changePolicy({ paused: true });
    const one = async (name: Name, kind: Kind): Promise<Guest> => {
      const guest = await Guest.boot({ name, memoryMib: MEMORY_MIB, ...waysTo(daemon, name)[kind] });
      booted(guest);
      await guest.waitReady(2 * PATIENCE_MS);
      if (name.startsWith('bronze') && !(await guest.eat(TOUCHED_MIB, PATIENCE_MS)))
        throw new Error(`${name} cannot touch ${TOUCHED_MIB} MiB`);
      return guest;
    };
    const names = KINDS.flatMap((kind) => [
      [`gold-${kind}`, kind] as const,
      [`bronze-${kind}`, kind] as const,
    ]);
    const made = await Promise.all(names.map(async ([name, kind]) => [name, await one(name, kind)] as const));
    const fleet = new MixedFleet(daemon, Object.fromEntries(made) as Record<Name, Guest>);
    await client.changePolicy({ paused: false });
    await fleet.#rests();
    return fleet;
  }

  /** The gold VM grows, and the bronze VM of the other kind is the only one that the policy may take from. */
  async shift(kind: Kind): Promise<Shift> {
    const other = kind === 'served' ? 'adopted' : 'served';
    const [gold, bronze, spared]: Name[] = [`gold-${kind}`, `bronze-${other}`, `bronze-${kind}`];
    if (gold === undefined || bronze === undefined || spared === undefined) throw new Error('no such kind');
    await this.#client.changePolicy({ vm: spared, paused: true });
    await this.#client.changePolicy({ vm: bronze, paused: false });
    await this.#rests();
    const before = await this.#said();
    const looks = this.#looks().length;
    const seq = (await this.#daemon.events()).at(-1)?.seq ?? 0;
    const held = (await this.#daemon.show(bronze)).balloon.actualBytes;
    const { host, reserveBytes } = await this.#client.policy();
    const spareMib = ((host?.availableBytes ?? 0) - reserveBytes) / MIB;
    const grownMib = Math.round(spareMib + LACKING_MIB);
    const begun = performance.now();
    await this.guests[gold].hold(grownMib, 1, PATIENCE_MS);
    await this.#daemon.until(
      bronze,
      ({ balloon }) => balloon.actualBytes >= held + (LACKING_MIB / 2) * MIB,
      `${bronze} gives`,
    );
    await this.#hasReserve();
    const seconds = (performance.now() - begun) / 1000;
    await this.#rests();
    const took = new Map<string, number>();
    for (const { event, vm, ...more } of await this.#daemon.events())
      if (more.seq > seq && event === 'policy-took' && vm !== undefined)
        took.set(vm, (took.get(vm) ?? 0) + 1);
    return {
      gold,
      bronze,
      grownMib,
      before,
      after: await this.#said(),
      seconds,
      looks: this.#looks().slice(looks),
      took,
    };
  }

  async #said(): Promise<Record<Name, Said>> {
    const all = Object.entries(this.guests).map(async ([name, guest]) => {
      const guestTotal = (await guest.meminfo())['MemTotal'] ?? 0;
      return [name, { guestTotal, onHost: residentBytes(guest.pid) }] as const;
    });
    return Object.fromEntries(await Promise.all(all)) as Record<Name, Said>;
  }

  #looks(): TraceLine[] {
    const lines = readFileSync(join(this.#daemon.folder, 'trace.ndjson'), 'utf8').split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as TraceLine);
  }

  async #hasReserve(): Promise<void> {
    await eventually(
      async () => {
        const { host, reserveBytes } = await this.#client.policy();
        return host !== null && host.availableBytes >= reserveBytes;
      },
      () => `the host has its reserve\n${this.#daemon.log}`,
    );
  }

  /** Waits until the host has its reserve and no balloon moves, at some looks of the policy one after the other. */
  async #rests(): Promise<void> {
    let from = this.#looks().length;
    let all = '';
    await eventually(
      async () => {
        await this.#hasReserve();
        const vms = await this.#daemon.list();
        const now = JSON.stringify(vms.map(({ balloon }) => [balloon.targetBytes, balloon.actualBytes]));
        const there =
          vms.length === 4 && vms.every(({ balloon }) => balloon.targetBytes === balloon.actualBytes);
        if (now !== all || !there) from = this.#looks().length;
        all = now;
        return this.#looks().length >= from + 6;
      },
      () => `all is at rest: ${all}\n${this.#daemon.log}`,
      200,
    );
  }
}

function waysTo(daemon: DaemonProcess, name: string) {
  return {
    served: { sockets: [{ path: daemon.socketPath, numVqs: 3 }] },
    adopted: {
      share: false,
      extraArgs: [
        ...['-device', 'virtio-balloon-pci,id=balloon0'],
        ...['-qmp', `unix:${join(daemon.folder, `${name}.qmp`)},server=on,wait=off`],
      ],
    },
  };
}

export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return ['RssAnon', 'RssShmem'].reduce(
    (sum, name) => sum + Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) * 1024,
    0,
  );
}
