import { BalloonDriver } from '../test/support/balloon-driver.js';
import { Frontend } from '../test/support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../test/support/guest-ram.js';
import { ANY_VMM } from '../test/support/vmm-orders.js';
import { play } from './player.js';

/** Guests at rest whose drivers follow their targets and send the statistics that Linux 6.12 sends. */
export interface FollowersOptions {
  readonly socketPath: string;
  readonly vms: number;
  readonly mib: number;
  /** What each guest uses of it; the rest is free or in its balloon. */
  readonly usedMib: number;
}

// A type, since an interface is not a record of parts.
export type FollowersPart = {
  connect: { ask: FollowersOptions; answer: null };
  /** Pages in all balloons, and how often statistics were asked for, in all. */
  state: { ask: null; answer: { pages: number; asked: number } };
};

const MIB = 2 ** 20;
/** Tags that do not change in a guest at rest. */
const STILL = [0, 1, 2, 7, 10, 11, 12, 13, 14, 15];
const MEMFREE = 4;
const AVAIL = 6;

const drivers: BalloonDriver[] = [];

async function connect({ socketPath, mib, usedMib }: FollowersOptions): Promise<void> {
  const lenBytes = mib * MIB;
  const frontend = new Frontend({
    order: ANY_VMM,
    socket: socketPath,
    ram: new GuestRam([{ gpa: 0, lenBytes }]),
  });
  await frontend.connect();
  let driver: BalloonDriver | null = null;
  const stats = (): (readonly [number, bigint])[] => {
    const held = (driver?.balloonPfns.size ?? 0) * PAGE_BYTES;
    const free = BigInt(Math.max(0, lenBytes - held - usedMib * MIB));
    return [[MEMFREE, free], [AVAIL, free], ...STILL.map((tag) => [tag, 0n] as const)];
  };
  driver = await BalloonDriver.start(frontend, { stats });
  driver.followTarget();
  drivers.push(driver);
}

play<FollowersPart>({
  connect: async (options) => {
    while (drivers.length < options.vms) await connect(options);
    return null;
  },
  state: () => ({
    pages: drivers.reduce((sum, { balloonPfns }) => sum + balloonPfns.size, 0),
    asked: drivers.reduce((sum, { statsRequests }) => sum + statsRequests, 0),
  }),
});
