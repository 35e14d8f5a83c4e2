/** `balloonctl limit`. */
import type { LimitRequest } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import { printable, type Output } from './output.js';
import { cgroupLines } from './show.js';

export async function limit(
  client: ControlClient,
  output: Output,
  name: string,
  limits: LimitRequest,
): Promise<void> {
  const vm = await client.setLimits(name, limits);
  if (output.json) output.document(vm);
  else output.print([`${printable(vm.name)}:`, ...cgroupLines(vm).map((line) => `  ${line}`)].join('\n'));
}
