/** `balloonctl adopt`, with `--release` and without it: QEMU's own balloon, which the daemon moves over QMP. */
import { isAbsolute, resolve } from 'node:path';
import { passedOn } from '../../../protocol/control/refusal.js';
import { ControlError, type ControlClient } from '../client.js';
import { printable, type Output } from './output.js';

/** A socket that waits in line is adopted later: the exit says that there is no VM yet. */
export async function adopt(client: ControlClient, output: Output, socket: string): Promise<void> {
  const path = isAbsolute(socket) ? socket : resolve(socket);
  const { vm, problem } = await client.changeAdopted({ path, adopted: true });
  if (vm === null) throw new ControlError(409, passedOn(printable(problem ?? '')));
  const view = await client.show(vm);
  if (output.json) output.document(view);
  else output.print(`${printable(vm)}: adopted over QMP (pid ${view.pid})`);
}

export async function release(client: ControlClient, output: Output, socket: string): Promise<void> {
  const path = isAbsolute(socket) ? socket : resolve(socket);
  const released = await client.changeAdopted({ path, adopted: false });
  if (output.json) output.document(released);
  else output.print(`${printable(released.vm ?? path)}: released; its balloon stays as it is`);
}
