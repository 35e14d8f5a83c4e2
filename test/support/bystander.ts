// A VM that behaves, served beside those that do not; and what a VM may leave behind in the daemon: nothing.
import { readdirSync, readFileSync } from 'node:fs';
import type { BalloonDriver } from './balloon-driver.js';
import { pfns, ServedVm } from './served-vm.js';

const PAGES = 8;
const FIRST = 8192;

export class Bystander {
  private constructor(
    private readonly served: ServedVm,
    private readonly driver: BalloonDriver,
  ) {}

  static async start(): Promise<Bystander> {
    const { served, driver } = await ServedVm.running();
    const bystander = new Bystander(served, driver);
    await bystander.works();
    return bystander;
  }

  /** Its guest gives up memory and takes it back; throws when the daemon does not serve that. */
  async works(): Promise<void> {
    const { frontend } = this.served;
    const pages = pfns(FIRST, PAGES);
    for (const pfn of pages) frontend.ram.fillPage(pfn, 1);
    await this.driver.inflate(pages);
    await this.served.discarded();
    if (!pages.every((pfn) => frontend.ram.pageIsZero(pfn))) throw new Error('the bystander keeps its pages');
    await this.driver.deflate(pages);
    if (frontend.protocolViolations.length > 0) throw new Error(frontend.protocolViolations.join('; '));
  }

  close(): Promise<void> {
    return this.served.close();
  }
}

/** How many fds this process has open, and how many memory files it has mapped. */
export function resources(): { fds: number; mappings: number } {
  const maps = readFileSync('/proc/self/maps', 'latin1').split('\n');
  return {
    fds: readdirSync('/proc/self/fd').length,
    mappings: maps.filter((line) => line.includes('/memfd:') || line.includes('/anon_hugepage')).length,
  };
}
