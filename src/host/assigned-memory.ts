/**
 * The memory that QEMU's command line gives a guest, in bytes: `-m`, and the DIMMs that are plugged in from the start. Null
 * where it does not say, as that of other VMMs.
 */
export function assignedMemory(commandLine: string | null): number | null {
  const words = commandLine?.split('\0') ?? [];
  const values = (name: string): string[] =>
    words.flatMap((word, n) => (word === `-${name}` || word === `--${name}` ? (words[n + 1] ?? []) : []));
  const memory = values('m')
    .map((value) => optionsOf(value, 'size')['size'])
    .at(-1);
  const bytes = memory === undefined ? null : qemuSize(memory, 2 ** 20);
  if (bytes === null) return null;
  const objects = values('object').map((value) => optionsOf(value, 'qom-type'));
  const dimms = values('device')
    .map((value) => optionsOf(value, 'driver'))
    .filter(({ driver }) => driver === 'pc-dimm')
    .map(({ memdev }) => objects.find(({ id }) => id !== undefined && id === memdev)?.['size'])
    .map((size) => (size === undefined ? 0 : (qemuSize(size, 1) ?? 0)));
  return dimms.reduce((sum, size) => sum + size, bytes);
}

/** `key=value,…`, of which the first value may come without its key; or one JSON object. Commas in a value come twice. */
function optionsOf(text: string, first: string): Record<string, string | undefined> {
  if (text.startsWith('{')) {
    try {
      const parsed = JSON.parse(text) as Record<string, unknown>;
      return Object.fromEntries(Object.entries(parsed).map(([key, value]) => [key, String(value)]));
    } catch {
      return {};
    }
  }
  const options = text.split(/(?<!,),(?!,)/).map((option, n) => {
    const at = option.indexOf('=');
    if (at < 0) return n === 0 ? ([first, option] as const) : ([option, 'on'] as const);
    return [option.slice(0, at), option.slice(at + 1)] as const;
  });
  return Object.fromEntries(options);
}

/** Null: it is no size. A number without a unit counts `unit` bytes (qemu/util/cutils.c, qemu_strtosz). */
function qemuSize(text: string, unit: number): number | null {
  const [, digits, letter] = /^(\d+(?:\.\d+)?)([BKMGTPE])?$/i.exec(text) ?? [];
  if (digits === undefined) return null;
  const factor = letter === undefined ? unit : 1024 ** 'BKMGTPE'.indexOf(letter.toUpperCase());
  const bytes = Math.floor(Number(digits) * factor);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : null;
}
