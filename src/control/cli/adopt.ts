/** `balloonctl adopt`, with SOCKET or DOMAIN, with `--release`, and without: QEMU's own balloon, which the daemon moves. */
import { existsSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { passedOn } from '../../../protocol/control/refusal.js';
import { ControlError, type ControlClient } from '../client.js';
import { tellAdopting } from './daemon-notes.js';
import { printable, type Output } from './output.js';
import { COLUMNS_ELSEWHERE, wrap } from './text.js';

/** A socket that waits in line is adopted later: the exit says that there is no VM yet. */
export async function adopt(client: ControlClient, output: Output, socket: string): Promise<void> {
  const path = await pathOf(client, socket);
  const { vm, problem } = await client.changeAdopted({ path, adopted: true });
  if (vm === null) throw new ControlError(409, passedOn(printable(problem ?? '')));
  const view = await client.show(vm);
  if (output.json) output.document(view);
  else
    output.print(
      `${printable(vm)}: adopted over ${view.kind === 'libvirt' ? 'libvirt' : 'QMP'} (pid ${view.pid})`,
    );
}

export async function release(client: ControlClient, output: Output, socket: string): Promise<void> {
  const path = await pathOf(client, socket);
  const released = await client.changeAdopted({ path, adopted: false });
  if (output.json) output.document(released);
  else if (released.vm === null)
    output.print(
      path.startsWith('libvirt:')
        ? `${printable(path.slice(8))}: no such domain runs; it is left alone when it does`
        : `${printable(path)}: no VM was adopted there yet, and the daemon tries no longer`,
    );
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

/** A word is a path, `libvirt:DOMAIN`, the name of a VM that is adopted, or that of a domain where no file has that name. */
async function pathOf(client: ControlClient, word: string): Promise<string> {
  const [path, domain] = [resolve(word), `libvirt:${word}`];
  if (word.startsWith('libvirt:')) return word;
  if (isAbsolute(word) || word.includes('/') || existsSync(path)) return path;
  const known = await client.adopted();
  const named = known.find(({ vm }) => vm === word);
  if (named !== undefined) return named.path;
  // No socket is there, so that a name can only be that of a domain.
  return known.some((one) => one.path === path) ? path : domain;
}
