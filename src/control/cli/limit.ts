/** `balloonctl limit`. */
import type { LimitRequest } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import { carryOut } from './many.js';
import { printable, type Output } from './output.js';
import type { Selection } from './selection.js';
import { cgroupLines } from './show.js';

export function limit(
  client: ControlClient,
  output: Output,
  selection: Selection,
  limits: LimitRequest,
): Promise<void> {
  return carryOut(client, output, selection, async (name) => {
    const vm = await client.setLimits(name, limits);
    return { vm, lines: [`${printable(vm.name)}:`, ...cgroupLines(vm).map((line) => `  ${line}`)] };
  });
}
