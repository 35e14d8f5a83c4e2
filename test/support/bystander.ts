// A VM that behaves, served beside those that do not; and what a VM may leave behind in the daemon: nothing.
import { readdirSync, readFileSync } from 'node:fs';
import { probeDiscard } from '../../src/os/discard.js';
import { createEventFd, signalEvent } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { BalloonDriver } from './balloon-driver.js';
import { eventually } from './deadline.js';
import { Frontend } from './frontend.js';
import { pfns, ServedVm } from './served-vm.js';
import { ANY_VMM } from './vmm-orders.js';

const PAGES = 8;
const FIRST = 8192;

export class Bystander {
  private constructor(
    private readonly frontend: Frontend,
    private readonly driver: BalloonDriver,
    readonly close: () => Promise<void>,
    /** What is known of it, for those who look for a fault. */
    private readonly state: () => unknown = () => 'elsewhere',
  ) {}

  /** Served in this process. */
  static async start(): Promise<Bystander> {
    const { served, frontend, driver } = await ServedVm.running({ frontend: { order: ANY_VMM } });
    return Bystander.#working(
      new Bystander(
        frontend,
        driver,
        () => served.close(),
        () => ({ ...served.view, discardingMs: served.vm.discardingMs, events: served.events.slice(-5) }),
      ),
    );
  }

  /** Served by the daemon that listens at `socketPath`. */
  static async connect(socketPath: string): Promise<Bystander> {
    const frontend = new Frontend({ socket: socketPath, order: ANY_VMM });
    await frontend.connect();
    const driver = await BalloonDriver.start(frontend);
    return Bystander.#working(new Bystander(frontend, driver, () => Promise.resolve(frontend.close())));
  }

  static async #working(bystander: Bystander): Promise<Bystander> {
    await bystander.works();
    return bystander;
  }

  /** Its guest gives up memory and takes it back; throws when the daemon does not serve that. */
  async works(): Promise<void> {
    const { ram, protocolViolations } = this.frontend;
    const pages = pfns(FIRST, PAGES);
    for (const pfn of pages) ram.fillPage(pfn, 1);
    await this.driver.inflate(pages);
    // They are discarded after the ack.
    await eventually(
      () => pages.every((pfn) => ram.pageIsZero(pfn)),
      () => `the bystander's pages are discarded: ${JSON.stringify(this.state())}`,
      2,
    );
    await this.driver.deflate(pages);
    if (protocolViolations.length > 0) throw new Error(protocolViolations.join('; '));
  }
}

/** Opens whatever a process opens once for all, on first use. */
function openOnce(): void {
  probeDiscard();
  const fd = createEventFd();
  signalEvent(fd);
  closeFd(fd);
}

/** How many fds this process has open, and how many memory files it has mapped. */
export function resources(): { fds: number; mappings: number } {
  openOnce();
  const maps = readFileSync('/proc/self/maps', 'latin1').split('\n');
  return {
    fds: readdirSync('/proc/self/fd').length,
    mappings: maps.filter((line) => line.includes('/memfd:') || line.includes('/anon_hugepage')).length,
  };
}
