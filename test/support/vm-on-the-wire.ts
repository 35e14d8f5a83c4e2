// A fleet in this process, and VMMs in this process that connect devices of one VM to it, as often as a test wants.
import type { Test } from 'tap';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { VmFleet } from '../../src/daemon/fleet.js';
import type { ConfigFile, SocketSettings } from '../../src/daemon/settings.js';
import { EventLog } from '../../src/ops/event-log.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { socketPair } from '../../src/os/socket.js';
import type { DeviceKind } from '../../src/vm/kinds.js';
import { BalloonDriver, BOTH_LIMITS, BOTH_SPACE } from './balloon-driver.js';
import { CACHE_CONFIG_BYTES, CacheDriver } from './cache-driver.js';
import { eventually } from './deadline.js';
import { Frontend } from './frontend.js';
import { HostTree } from './host-tree.js';
import { pfns } from './served-vm.js';

/** The cgroup of the VMMs, which are this process. */
export const CGROUP = '/vms/web';
export const NAME = 'web';
const SOCKETS = {
  balloon: { path: '/balloon', name: NAME },
  'cache-balloon': { path: '/cache', name: NAME, device: 'cache-balloon' },
  both: { path: '/both', name: NAME },
} as const satisfies Record<string, SocketSettings>;

/** A device with a driver that runs. */
export interface RunningDevice {
  readonly frontend: Frontend;
  /** Gives up this many pages, from a page of its own on. */
  give(count: number): Promise<void>;
}

export interface Wire {
  readonly fleet: VmFleet;
  readonly tree: HostTree;
  readonly events: DaemonEvent[];
  readonly connect: (kind: keyof typeof SOCKETS) => Promise<RunningDevice>;
  readonly limit: (name: 'high' | 'max') => string;
  readonly gone: () => Promise<void>;
}

function ignore(): void {
  return;
}

/** Closed with the test. `traditional`: the kind of device that a balloon is, where a test has a kind of its own. */
export function wire(t: Test, config: ConfigFile = {}, traditional: DeviceKind = 'balloon'): Wire {
  const tree = new HostTree(t);
  tree.process(process.pid, CGROUP);
  tree.memory(CGROUP, { current: 2 ** 20 });
  tree.write('proc/meminfo', 'MemTotal: 1048576 kB\nMemAvailable: 1048576 kB\n');
  const log = new EventLog({ debug: ignore, info: ignore, warn: ignore, error: ignore });
  const events: DaemonEvent[] = [];
  log.subscribe((event) => events.push(event));
  const fleet = new VmFleet(config, log, NO_KEEPER, { paths: tree.paths, pinCheckMs: 5 });
  const frontends: Frontend[] = [];
  const gone = async (): Promise<void> => {
    for (const frontend of frontends) frontend.close();
    await eventually(
      () => fleet.size === 0,
      () => 'the VM is gone',
    );
  };
  t.teardown(async () => {
    await gone();
    fleet.close();
  });
  return {
    fleet,
    tree,
    events,
    gone,
    limit: (name) => tree.read(`cgroup${CGROUP}/memory.${name}`),
    connect: async (kind) => {
      const [ours, theirs] = socketPair();
      fleet.adopt(ours, kind === 'balloon' ? { ...SOCKETS[kind], device: traditional } : SOCKETS[kind]);
      const cache = kind === 'cache-balloon';
      const both = kind === 'both';
      const space = cache ? { queueCount: 2, configBytes: CACHE_CONFIG_BYTES } : both ? BOTH_SPACE : {};
      const frontend = new Frontend({ socket: theirs, ...space });
      frontends.push(frontend);
      await frontend.connect();
      if (cache) {
        const driver = await CacheDriver.start(frontend);
        await frontend.getConfig();
        const give = (count: number): Promise<void> =>
          driver.add(Array.from({ length: count }, (_, n) => ({ pfn: 8192 + n, order: 0 })));
        return { frontend, give };
      }
      const driver = await BalloonDriver.start(frontend, both ? { features: BOTH_LIMITS } : {});
      if (both) await driver.tellBlocks('cache', [{ pfn: 8192, order: 9 }]);
      // Nothing answers the start itself: an answer to what comes after it says that it was seen.
      await frontend.getConfig();
      return { frontend, give: (count) => driver.inflate(pfns(4096, count)) };
    },
  };
}
