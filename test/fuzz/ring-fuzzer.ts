import { resources } from '../support/bystander.js';
import { assertSame } from './assert-same.js';
import type { Dice } from './dice.js';
import { turn, turns, type Fuzzer } from './fuzzer.js';
import { HostileDriver } from './hostile-driver.js';

const MOST_STEPS = 120;

/** Rings of a driver that breaks them, also while they are served. */
export class RingFuzzer implements Fuzzer {
  readonly name = 'ring';

  async run(dice: Dice): Promise<void> {
    const before = resources();
    const driver = new HostileDriver(dice);
    driver.start();
    for (let step = dice.below(MOST_STEPS); step > 0; step--) {
      driver.work();
      if (dice.chance(10)) driver.command();
      if (dice.chance(30)) await turn();
      if (dice.chance(5)) await turns(5);
      if (dice.chance(4)) driver.check();
      if (dice.chance(6)) await driver.restart();
    }
    await driver.close();
    assertSame(resources(), before, 'what is open and mapped after the rings');
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
