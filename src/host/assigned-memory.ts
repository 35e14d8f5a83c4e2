import { qemuOptions } from './qemu-options.js';

/**
 * The memory that QEMU's command line gives a guest, in bytes: `-m`, and the DIMMs that are plugged in from the start. Null
 * where it does not say, as that of other VMMs.
 */
export function assignedMemory(commandLine: string | null): number | null {
  const memory = qemuOptions(commandLine, 'm', 'size')
    .map(({ size }) => size)
    .at(-1);
  const bytes = memory === undefined ? null : qemuSize(memory, 2 ** 20);
  if (bytes === null) return null;
  const objects = qemuOptions(commandLine, 'object', 'qom-type');
  const dimms = qemuOptions(commandLine, 'device', 'driver')
    .filter(({ driver }) => driver === 'pc-dimm')
    .map(({ memdev }) => objects.find(({ id }) => id !== undefined && id === memdev)?.['size'])
    .map((size) => (size === undefined ? 0 : (qemuSize(size, 1) ?? 0)));
  return dimms.reduce((sum, size) => sum + size, bytes);
}

/** Null: it is no size. A number without a unit counts `unit` bytes (qemu/util/cutils.c, qemu_strtosz). */
function qemuSize(text: string, unit: number): number | null {
  const [, digits, letter] = /^(\d+(?:\.\d+)?)([BKMGTPE])?$/i.exec(text) ?? [];
  if (digits === undefined) return null;
  const factor = letter === undefined ? unit : 1024 ** 'BKMGTPE'.indexOf(letter.toUpperCase());
  const bytes = Math.floor(Number(digits) * factor);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : null;
}
