// Tests on the wire, each with the messages of every VMM in its order.
import t, { type Test } from 'tap';
import { underOrder, VMM_ORDERS, type VmmOrder } from './vmm-orders.js';

/** What a test is about, and a VMM may hide from its guest or not speak. */
export interface Needs {
  /** Feature bits of the device. */
  readonly features?: bigint;
  readonly protocolFeatures?: bigint;
  /** The VM lives on without its back-end, and connects again. */
  readonly reconnects?: true;
}

type Run = (t: Test, order: VmmOrder) => Promise<void>;

/** Of a test with these needs: declares it once for each VMM that meets them. Frontends in it that name no order have the VMM's. */
export function eachOrder({ features = 0n, protocolFeatures = 0n, reconnects }: Needs = {}): (
  name: string,
  run: Run,
) => void {
  const meet = VMM_ORDERS.filter(
    (order) =>
      (order.passes & features) === features &&
      (order.protocolFeatures & protocolFeatures) === protocolFeatures &&
      (reconnects === undefined || order.reconnect !== null),
  );
  return (name, run) => {
    for (const order of meet)
      void t.test(`${order.name}, ${name}`, (t) => underOrder(order, () => run(t, order)));
  };
}

export const inEachOrder = eachOrder();
