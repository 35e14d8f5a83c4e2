// One VM of the daemon, served in this process to a frontend in this process.
import type { EventName } from '../../protocol/control/events.js';
import type { VmView } from '../../protocol/control/schema.js';
import { Vm } from '../../src/daemon/vm.js';
import { deviceOptions, type DeviceOptions } from '../../src/daemon/settings.js';
import type { HostPaths } from '../../src/host/host-paths.js';
import { StateFile } from '../../src/memory/state-file.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { socketPair } from '../../src/os/socket.js';
import type { Turns } from '../../src/vhost-user/turns.js';
import { BalloonDriver, type BalloonDriverOptions } from './balloon-driver.js';
import { Frontend, type FrontendOptions } from './frontend.js';

/** No process has it, so that nothing is learnt of the "VMM" by looking at this very process. */
const NOBODY = 2 ** 22 + 1;

export interface SeenEvent {
  event: EventName;
  message: string;
  fields: Record<string, unknown>;
}

export class ServedVm {
  readonly vm: Vm;
  readonly frontend: Frontend;
  readonly events: SeenEvent[] = [];
  closed = false;

  constructor(
    options: Partial<DeviceOptions> & {
      frontend?: Partial<FrontendOptions>;
      pid?: number;
      turns?: Turns;
      paths?: HostPaths;
    } = {},
  ) {
    const { frontend, pid = NOBODY, turns, paths, ...device } = options;
    const [ours, theirs] = socketPair();
    const settings = { ...deviceOptions({}, null, 'vm'), statsIntervalSeconds: 0, ...device };
    const shared = { ...(turns !== undefined && { turns }), ...(paths !== undefined && { paths }) };
    const handOver = { keeper: NO_KEEPER, state: StateFile.create(), found: null, ...shared };
    this.vm = new Vm(
      ours,
      { name: 'vm', pid, socketPath: null, options: settings },
      handOver,
      (event, message, fields = {}) => this.events.push({ event, message, fields }),
      () => (this.closed = true),
    );
    this.frontend = new Frontend({ socket: theirs, timeoutMs: 5000, ...frontend });
  }

  /** Connected, with a driver that runs. */
  static async running(
    options: ConstructorParameters<typeof ServedVm>[0] & { driver?: BalloonDriverOptions } = {},
  ): Promise<{ served: ServedVm; frontend: Frontend; driver: BalloonDriver }> {
    const { driver: driverOptions, ...rest } = options;
    const served = new ServedVm(rest);
    await served.frontend.connect();
    const driver = await BalloonDriver.start(served.frontend, driverOptions);
    await served.until((view) => view.state === 'running', 'the device runs');
    return { served, frontend: served.frontend, driver };
  }

  get view(): VmView {
    return this.vm.view();
  }

  saw(event: EventName): SeenEvent[] {
    return this.events.filter((seen) => seen.event === event);
  }

  /** Lets both sides work until `condition` holds. */
  async until(condition: (view: VmView) => boolean, what: string): Promise<void> {
    for (let turns = 0; !condition(this.view); turns++) {
      if (turns > 2000) throw new Error(`never: ${what}; the VM is ${JSON.stringify(this.view)}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** Everything the guest gave up is discarded. */
  async discarded(): Promise<void> {
    await this.until(({ balloon }) => balloon.pendingBytes === 0, 'nothing is owed');
  }

  /** Lets both sides work off what is under way. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setTimeout(resolve, 2));
  }

  async close(): Promise<void> {
    this.frontend.close();
    await this.until(() => this.closed, 'the daemon sees the end');
  }
}

/** Consecutive page frame numbers. */
export function pfns(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, n) => first + n);
}
