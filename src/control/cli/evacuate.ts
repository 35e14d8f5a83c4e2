/** `balloonctl evacuate`: empties the balloon of a VM, so that QEMU can unplug the device and migrate the VM. */
import { refusal } from '../../../protocol/control/refusal.js';
import type { VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import { vmCommand } from '../../../protocol/control/vm-command.js';
import type { ControlClient } from '../client.js';
import { FoundError } from './exit.js';
import { printable, type Output } from './output.js';
import { followed, isReached, tooLate } from './set-target.js';

/** Throws WaitTimeoutError when the guest has not all of its memory after `waitSeconds`, and FoundError for a VM that QEMU migrates as it is. */
export async function evacuate(
  client: ControlClient,
  output: Output,
  name: string,
  waitSeconds: number,
): Promise<void> {
  const before = await client.show(name);
  // A daemon of an earlier build tells of no kind, and has VMs of this one alone.
  if (before.kind === 'qmp' || before.kind === 'libvirt')
    throw new FoundError(refusal(`${printable(name)} has QEMU's own balloon`, 'keep its balloon as it is'));
  const ordered = await client.setTarget(name, { balloonBytes: 0 });
  // A guest whose driver never started has given nothing up.
  const vm = ordered.state === 'connected' ? ordered : await followed(client, ordered, waitSeconds);
  if (vm.state !== 'connected' && !isReached(vm)) throw tooLate(vm, waitSeconds);
  const there = targetThere(before);
  const here = vmCommand('balloonctl orders', printable(name), '--take-back');
  const { cache } = vm;
  const cacheLimitBytes = cache === null || cache.targetBytes === 0 ? null : cache.targetBytes;
  const thereCache = cacheLimitBytes === null ? null : setCommand(name, '--cache-limit', cacheLimitBytes);
  if (output.json) {
    const { targetBytes } = before.balloon;
    output.document({ vm: name, targetBytes, cacheLimitBytes, there: there.command, thereCache, here });
    return;
  }
  output.print(
    [
      `${printable(name)}: the balloon is empty, the device may go`,
      ...(cache === null || cache.actualBytes === 0
        ? []
        : [
            `  the page cache balloon holds ${formatSize(cache.actualBytes)}, which its driver gives back as the device goes`,
          ]),
      '  in the monitor of QEMU: device_del balloon',
      `  with libvirt: virsh qemu-monitor-command ${printable(name)} --hmp device_del balloon`,
      `  on the other host, when the device is plugged in again: ${there.words}`,
      ...(thereCache === null || cacheLimitBytes === null
        ? []
        : [`  and there: ${commented(thereCache, cacheLimitBytes)}`]),
      `  on this host, when the VM has left: ${here}`,
    ].join('\n'),
  );
}

/** The way in which the VM gets its target on the other host, and the command, where there is one. A daemon of an earlier build tells of no orders. */
function targetThere({ name, balloon, orders = [] }: Omit<VmView, 'orders'> & Partial<VmView>): {
  words: string;
  command: string | null;
} {
  const by = orders.find(({ order }) => order === 'target')?.by;
  if (by === 'configuration') return { words: 'give the VM the same [[vm]] target there', command: null };
  if (balloon.targetBytes === 0) return { words: 'nothing, the target was 0', command: null };
  if (by === undefined) return { words: 'nothing, the policy there sets its target', command: null };
  const command = setCommand(name, '--balloon', balloon.targetBytes);
  return { words: commented(command, balloon.targetBytes), command };
}

function setCommand(name: string, option: '--balloon' | '--cache-limit', bytes: number): string {
  return vmCommand('balloonctl set', printable(name), `${option} ${bytes}`);
}

/** A line for a shell, which leaves out the size for people. */
function commented(command: string, bytes: number): string {
  return `${command}  # ${formatSize(bytes)}`;
}
