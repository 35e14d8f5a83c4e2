/** `balloonctl orders`: the orders that hold, also for VMs that are not connected, and the way to take them back. */
import type { VmOrders } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import { printable, type Output } from './output.js';
import { orderLines } from './show.js';
import { COLUMNS_ELSEWHERE } from './text.js';

/** `name` null: of all VMs. */
export async function orders(client: ControlClient, output: Output, name: string | null): Promise<void> {
  const all = (await client.orders()).filter(({ vm }) => name === null || vm === name);
  if (output.json) output.document(all);
  else if (all.length > 0)
    output.print(all.flatMap((one) => lines(one, output.columns ?? COLUMNS_ELSEWHERE)).join('\n'));
  else output.print(`no order holds${name === null ? '' : ` for ${printable(name)}`}`);
}

export async function takeBackOrders(client: ControlClient, output: Output, name: string): Promise<void> {
  const { orders: taken, connected } = await client.takeBackOrders(name);
  if (output.json) output.document({ vm: name, connected, orders: taken });
  else {
    const words = taken.map(({ says }) => printable(says));
    output.print(
      `${printable(name)}: ${words.length === 0 ? 'no operator gave an order' : `taken back: ${words.join('; ')}`}`,
    );
  }
}

function lines({ vm, connected, orders: held }: VmOrders, columns: number): string[] {
  const indented = orderLines({ orders: held }, columns - 2).map((line) => `  ${line}`);
  return [`${printable(vm)}${connected ? '' : ', not connected'}`, ...indented];
}
