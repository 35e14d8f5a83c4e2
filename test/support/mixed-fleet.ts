// Two VMs that balloond serves over vhost-user and two that it adopts over QMP, a gold and a bronze one of each, and a bronze domain of
// libvirt, on a part of the host's memory that the policy keeps at its reserve: what a gold VM grows by, a bronze VM of another kind gives.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TraceLine } from '../../protocol/policy-trace.js';
import { ControlClient } from '../../src/control/client.js';
import type { DaemonProcess } from './daemon.js';
import { eventually, PATIENCE_MS } from './deadline.js';
import { Guest } from './lab/guest.js';
import { ensureLab } from './lab/lab.js';
import { LibvirtHost, LOAD_DRIVER, REST, touch } from './libvirt-host.js';

const MIB = 2 ** 20;
/** A gold guest grows more than once, and a domain has 512 MiB as well. */
const MEMORY_MIB = { gold: 1024, bronze: 512 } as const;
/** A bronze guest touched so much, and has it free again. */
const TOUCHED_MIB = 370;
const MEMORY_IN_ALL_MIB = 2020;
/** So much of the memory is kept in reserve. Where half of that is gone, the policy takes from all bands. */
export const RESERVE_SHARE = 0.2;
/** A gold guest grows by so much more than what the host has beyond its reserve: less than half of that. */
export const LACKING_MIB = 100;
const INTERVAL_SECONDS = 0.5;

/**
 * Without free page reporting, which gives memory back that is free, and without DEFLATE_ON_OOM, with which Linux counts what is in the
 * balloon as its own.
 */
const config = (bus: string): string => `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ"]

[[qmp]]
path = "{folder}/*.qmp"

[libvirt]
bus = "${bus}"

[[vm]]
match = "*"
stats-interval = 1

[policy]
mode = "auto"
memory = "${MEMORY_IN_ALL_MIB}M"
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

type GuestName = `${'gold' | 'bronze'}-${'served' | 'adopted'}`;
export type Name = GuestName | 'bronze-domain';
const DOMAIN = 'bronze-domain' satisfies Name;

/** The ways that memory goes, one after the other. */
export const SHIFTS = [
  { gold: 'gold-served', bronze: 'bronze-adopted' },
  { gold: 'gold-adopted', bronze: 'bronze-served' },
  { gold: 'gold-served', bronze: DOMAIN },
] as const satisfies { gold: GuestName; bronze: Name }[];
const NAMES = [...new Set<Name>(SHIFTS.flatMap(({ gold, bronze }) => [gold, bronze]))];

/** What a guest and the host say of a VM, in bytes. */
export interface Said {
  /** All memory that the guest has, by its own word: what is in its balloon is not of it. */
  readonly guestTotal: number;
  /** The memory of the VM that is on the host, the VMM's own included. */
  readonly onHost: number;
}

/** One growth of a gold VM. */
export interface Shift {
  readonly gold: GuestName;
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
  readonly daemon: DaemonProcess;
  readonly #client: ControlClient;
  readonly #host: LibvirtHost;
  readonly guests: Readonly<Record<GuestName, Guest>>;
  readonly #heldMib = new Map<GuestName, number>();

  private constructor(daemon: DaemonProcess, host: LibvirtHost, guests: Record<GuestName, Guest>) {
    this.daemon = daemon;
    this.#client = new ControlClient(daemon.controlPath);
    this.#host = host;
    this.guests = guests;
  }

  /**
   * Boots the guests of a daemon that `start` starts, and waits until the host has its reserve. `ends` is given what is to be done at the
   * end, the last one first.
   */
  static async boot(
    start: (config: string) => Promise<DaemonProcess>,
    ends: (end: () => unknown) => void,
  ): Promise<MixedFleet> {
    const { qemu } = await ensureLab();
    const shared = mkdtempSync(join(tmpdir(), 'balloond-shared-'));
    ends(() => rmSync(shared, { recursive: true, force: true }));
    const host = await LibvirtHost.start(shared, dirname(qemu));
    ends(() => host.close());
    const daemon = await start(config(host.bus));
    const client = new ControlClient(daemon.controlPath);
    // A guest that gives memory while it boots, or while it touches what it is to give, takes long for either.
    await client.changePolicy({ paused: true });
    const one = async (name: GuestName): Promise<[GuestName, Guest]> => {
      const band = name.startsWith('gold') ? 'gold' : 'bronze';
      const guest = await Guest.boot({ name, memoryMib: MEMORY_MIB[band], ...waysTo(daemon, name) });
      ends(() => guest.kill());
      await guest.waitReady(2 * PATIENCE_MS);
      if (band === 'bronze' && !(await guest.eat(TOUCHED_MIB, PATIENCE_MS)))
        throw new Error(`${name} cannot touch ${TOUCHED_MIB} MiB`);
      return [name, guest];
    };
    const domain = async (): Promise<void> => {
      await host.define(DOMAIN, `${LOAD_DRIVER}; ${touch(TOUCHED_MIB)}; ${REST}`);
      await host.ok(`virsh start ${DOMAIN}`);
      await daemon.until(DOMAIN, ({ state }) => state === 'running', 'it is found', 2 * PATIENCE_MS);
      await eventually(
        async () =>
          (await host.memstat(DOMAIN, 'rss')) > TOUCHED_MIB * MIB &&
          (await host.memstat(DOMAIN, 'unused')) > TOUCHED_MIB * MIB,
        () => `${DOMAIN} touched its memory`,
        1000,
      );
    };
    const names = NAMES.filter((name): name is GuestName => name !== DOMAIN);
    const [guests] = await Promise.all([Promise.all(names.map(one)), domain()]);
    const fleet = new MixedFleet(daemon, host, Object.fromEntries(guests) as Record<GuestName, Guest>);
    await client.changePolicy({ paused: false });
    await fleet.#rests();
    return fleet;
  }

  /** The gold VM grows, and `bronze` is the only bronze one that the policy may take from. */
  async shift({ gold, bronze }: (typeof SHIFTS)[number]): Promise<Shift> {
    for (const vm of NAMES.filter((name) => name.startsWith('bronze')))
      await this.#client.changePolicy({ vm, paused: vm !== bronze });
    await this.#rests();
    const before = await this.#said();
    const looks = this.#looks().length;
    const seq = (await this.daemon.events()).at(-1)?.seq ?? 0;
    const held = (await this.daemon.show(bronze)).balloon.actualBytes;
    const { host, reserveBytes } = await this.#client.policy();
    const spareMib = ((host?.availableBytes ?? 0) - reserveBytes) / MIB;
    const grownMib = Math.round(spareMib + LACKING_MIB);
    const begun = performance.now();
    const heldMib = (this.#heldMib.get(gold) ?? 0) + grownMib;
    await this.guests[gold].hold(heldMib, 1, PATIENCE_MS);
    this.#heldMib.set(gold, heldMib);
    await this.daemon.until(
      bronze,
      ({ balloon }) => balloon.actualBytes >= held + (LACKING_MIB / 2) * MIB,
      `${bronze} gives`,
    );
    await this.#hasReserve();
    const seconds = (performance.now() - begun) / 1000;
    await this.#rests();
    const took = new Map<string, number>();
    for (const { event, vm, ...more } of await this.daemon.events())
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
    const all = NAMES.map(async (name) => {
      const guestTotal =
        name === DOMAIN
          ? await this.#host.memstat(DOMAIN, 'available')
          : ((await this.guests[name].meminfo())['MemTotal'] ?? 0);
      const { pid } = await this.daemon.show(name);
      return [name, { guestTotal, onHost: residentBytes(pid) }] as const;
    });
    return Object.fromEntries(await Promise.all(all)) as Record<Name, Said>;
  }

  #looks(): TraceLine[] {
    const lines = readFileSync(join(this.daemon.folder, 'trace.ndjson'), 'utf8').split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as TraceLine);
  }

  async #hasReserve(): Promise<void> {
    await eventually(
      async () => {
        const { host, reserveBytes } = await this.#client.policy();
        return host !== null && host.availableBytes >= reserveBytes;
      },
      () => `the host has its reserve\n${this.daemon.log}`,
    );
  }

  /** Waits until the host has its reserve and no balloon moves, at some looks of the policy one after the other. */
  async #rests(): Promise<void> {
    let from = this.#looks().length;
    let all = '';
    await eventually(
      async () => {
        await this.#hasReserve();
        const vms = await this.daemon.list();
        const now = JSON.stringify(vms.map(({ balloon }) => [balloon.targetBytes, balloon.actualBytes]));
        const there =
          vms.length === NAMES.length &&
          vms.every(({ balloon }) => balloon.targetBytes === balloon.actualBytes);
        if (now !== all || !there) from = this.#looks().length;
        all = now;
        return this.#looks().length >= from + 6;
      },
      () => `all is at rest: ${all}\n${this.daemon.log}`,
      200,
    );
  }
}

function waysTo(daemon: DaemonProcess, name: GuestName) {
  if (name.endsWith('served')) return { sockets: [{ path: daemon.socketPath, numVqs: 3 }] };
  return {
    share: false,
    extraArgs: [
      ...['-device', 'virtio-balloon-pci,id=balloon0'],
      ...['-qmp', `unix:${join(daemon.folder, `${name}.qmp`)},server=on,wait=off`],
    ],
  };
}

export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return ['RssAnon', 'RssShmem'].reduce(
    (sum, name) => sum + Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) * 1024,
    0,
  );
}
