/** `balloonctl adopt`, with SOCKET, with `--release`, and without: QEMU's own balloon, which the daemon moves over QMP. */
import { isAbsolute, resolve } from 'node:path';
import { passedOn } from '../../../protocol/control/refusal.js';
import { ControlError, type ControlClient } from '../client.js';
import { tellAdopting } from './daemon-notes.js';
import { printable, type Output } from './output.js';
import { COLUMNS_ELSEWHERE, wrap } from './text.js';

/** A socket that waits in line is adopted later: the exit says that there is no VM yet. */
export async function adopt(client: ControlClient, output: Output, socket: string): Promise<void> {
  const { vm, problem } = await client.changeAdopted({ path: absolute(socket), adopted: true });
  if (vm === null) throw new ControlError(409, passedOn(printable(problem ?? '')));
  const view = await client.show(vm);
  if (output.json) output.document(view);
  else output.print(`${printable(vm)}: adopted over QMP (pid ${view.pid})`);
}

export async function release(client: ControlClient, output: Output, socket: string): Promise<void> {
  const path = absolute(socket);
  const released = await client.changeAdopted({ path, adopted: false });
  if (output.json) output.document(released);
  else if (released.vm === null)
    output.print(`${printable(path)}: no VM was adopted there yet, and the daemon tries no longer`);
  else output.print(`${printable(released.vm)}: released; its balloon stays as it is`);
}

/** Lists the sockets and domains that are adopted or are to be, each with its VM or with the reason why there is none. */
export async function listAdopted(client: ControlClient, output: Output): Promise<void> {
  const [all, daemon] = await Promise.all([client.adopted(), client.daemon()]);
  if (output.json) output.document(all);
  const isTold = tellAdopting(daemon, output);
  if (output.json || (all.length === 0 && isTold)) return;
  if (all.length === 0) return output.print('no VM is adopted, and none is to be');
  const lines = all.flatMap(({ path, by, vm, problem }) => {
    const whose = by === 'configuration' ? ', by the configuration' : '';
    const state = vm === null ? 'no VM yet' : printable(vm);
    const why = problem === null ? [] : wrap(printable(problem), (output.columns ?? COLUMNS_ELSEWHERE) - 2);
    return [`${printable(path)}: ${state}${whose}`, ...why.map((line) => `  ${line}`)];
  });
  output.print(lines.join('\n'));
}

function absolute(socket: string): string {
  return isAbsolute(socket) ? socket : resolve(socket);
}
