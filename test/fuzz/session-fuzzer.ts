import { Bystander, resources } from '../support/bystander.js';
import { assertSame } from './assert-same.js';
import type { Dice } from './dice.js';
import { turn, turns, type Fuzzer } from './fuzzer.js';
import { HostileVmm } from './hostile-vmm.js';

const MOST_STEPS = 200;
/** Cases between two looks at the VM that behaves. */
const BETWEEN = 40;

/** The message stream of one VM, from its connection to its end, beside a VM that behaves. */
export class SessionFuzzer implements Fuzzer {
  readonly name = 'session';
  #bystander: Bystander | null = null;
  #cases = 0;

  async run(dice: Dice): Promise<void> {
    this.#bystander ??= await Bystander.start();
    const before = resources();
    const vmm = new HostileVmm(dice);
    try {
      await this.#talk(vmm, dice);
    } finally {
      await vmm.close();
    }
    await turns(2);
    assertSame(resources(), before, 'what is open and mapped after the connection');
    if (++this.#cases % BETWEEN === 0) await this.#bystander.works();
  }

  async close(): Promise<void> {
    await this.#bystander?.works();
    await this.#bystander?.close();
    this.#bystander = null;
  }

  async #talk(vmm: HostileVmm, dice: Dice): Promise<void> {
    if (dice.chance(95)) await vmm.start();
    for (let step = dice.below(MOST_STEPS); step > 0 && !vmm.over; step--) {
      await vmm.speak();
      if (dice.chance(50)) vmm.work();
      if (dice.chance(40)) vmm.listen();
      if (dice.chance(5)) vmm.command();
      if (dice.chance(20)) await turn();
      if (dice.chance(2)) await vmm.start();
      if (dice.below(1000) === 0) await vmm.noise();
      if (dice.below(1000) === 0) await vmm.flood();
      if (dice.below(5000) === 0) await vmm.nag();
      if (dice.below(3000) === 0) vmm.cutMemory();
    }
  }
}
