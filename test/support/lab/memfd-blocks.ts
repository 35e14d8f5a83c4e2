import { readdirSync, readlinkSync, statSync } from 'node:fs';

/** Of guest memory: memory-backend-memfd says its own name, and memory-backend-ram its id, which is that of qemu-args. */
const GUEST_MEMORY = /^\/memfd:(memory-backend-memfd|balloon-mem)\b/;

/** Bytes the host has allocated to the memfds of the QEMU `pid` that `named` picks by /proc's names for them; 0: it has none such. */
export function memfdAllocatedBytes(pid: number, named: RegExp = GUEST_MEMORY): number {
  const folder = `/proc/${pid}/fd`;
  const blocks = new Map<number, number>();
  for (const fd of readdirSync(folder)) {
    const path = `${folder}/${fd}`;
    if (!named.test(linkOf(path))) continue;
    const file = statSync(path);
    blocks.set(file.ino, file.blocks);
  }
  return [...blocks.values()].reduce((sum, count) => sum + count * 512, 0);
}

/** Empty when the descriptor was closed meanwhile. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
