// One VM of the daemon, served in this process to a frontend in this process.
import type { EventName } from '../../protocol/control/events.js';
import type { VmView } from '../../protocol/control/schema.js';
import { deviceOptions } from '../../src/daemon/settings.js';
import { HOST_PATHS, type HostPaths } from '../../src/host/host-paths.js';
import { StateFile } from '../../src/memory/state-file.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { socketPair } from '../../src/os/socket.js';
import type { Turns } from '../../src/vhost-user/turns.js';
import type { DeviceHandOver } from '../../src/vm/device-owner.js';
import type { AnyDevice } from '../../src/vm/any-device.js';
import type { VmDevice } from '../../src/vm/device.js';
import type { DeviceOptions } from '../../src/vm/kinds.js';
import { OrderBook } from '../../src/vm/order-book.js';
import { NO_WISHES, type Wishes } from '../../src/vm/orders.js';
import { vmView } from '../../src/vm/view.js';
import { Vm, type VmContext } from '../../src/vm/vm.js';
import type { Emit } from '../../src/ops/event-log.js';
import { BalloonDriver, type BalloonDriverOptions } from './balloon-driver.js';
import { Frontend, type FrontendOptions } from './frontend.js';

/** No process has it, so that nothing is learnt of the "VMM" by looking at this very process. */
const NOBODY = 2 ** 22 + 1;

export interface SeenEvent {
  event: EventName;
  message: string;
  fields: Record<string, unknown>;
}

/** A VM with one device, served as the fleet does it; `ended` is called when the device is gone. */
export function serveDevice(
  fd: number,
  { name, pid, options }: { name: string; pid: number; options: DeviceOptions },
  handOver: DeviceHandOver,
  emit: Emit,
  ended: () => void,
  { paths = HOST_PATHS, wishes = NO_WISHES, book = new OrderBook(), beside }: ServeOptions = {},
): { vm: Vm; device: VmDevice } {
  const gone: VmContext['gone'] = (_, device) => ENDINGS.get(device)?.();
  const vm = beside ?? new Vm(name, pid, { emit, book, wishes, policyActs: () => false, paths, gone });
  const device = vm.attach(fd, { socketPath: handOver.found?.socket ?? null, options }, handOver);
  ENDINGS.set(device, ended);
  if (handOver.found === null) vm.greet(device);
  else vm.takeOver(device, handOver.found);
  return { vm, device };
}

const ENDINGS = new WeakMap<AnyDevice, () => void>();

export interface ServeOptions {
  /** The VM that the device is of, if it has one already. */
  beside?: Vm;
  paths?: HostPaths;
  wishes?: Wishes;
  book?: OrderBook;
}

export class ServedVm {
  readonly vm: Vm;
  readonly device: VmDevice;
  readonly frontend: Frontend;
  /** The VMM's end of the connection, which the frontend owns. */
  readonly socket: number;
  readonly events: SeenEvent[] = [];
  closed = false;

  constructor(
    options: Partial<DeviceOptions> & {
      frontend?: Partial<FrontendOptions>;
      /** A frontend that connects again, with its guest; `reconnect` or `connectAgain` is to be called for `socket`. */
      over?: Frontend;
      pid?: number;
      turns?: Turns;
      name?: string;
      paths?: HostPaths;
      beside?: Vm;
      book?: OrderBook;
    } = {},
  ) {
    const { frontend, over, pid = NOBODY, turns, paths, beside, book, name = 'vm', ...settings } = options;
    const [ours, theirs] = socketPair();
    const all = { ...deviceOptions({}, null, 'vm'), statsIntervalSeconds: 0, ...settings };
    const shared = turns === undefined ? {} : { turns };
    const handOver = { keeper: NO_KEEPER, state: StateFile.create(), found: null, ...shared };
    const { vm, device } = serveDevice(
      ours,
      { name, pid, options: all },
      handOver,
      (event, message, fields = {}) => this.events.push({ event, message, fields }),
      () => (this.closed = true),
      {
        ...(paths !== undefined && { paths }),
        ...(beside !== undefined && { beside }),
        ...(book !== undefined && { book }),
      },
    );
    this.vm = vm;
    this.device = device;
    this.socket = theirs;
    this.frontend = over ?? new Frontend({ socket: theirs, ...frontend });
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

  /** The VM with this device alone, as `balloon` whichever it is. */
  get view(): VmView {
    const { device } = this;
    return { ...vmView(this.vm, null, [device]), balloon: device.balloonView() };
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
