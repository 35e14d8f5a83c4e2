/**
 * Sizes as people write and read them. K, M, G and T are binary (powers of 1024), with or without `iB`;
 * decimal spellings such as `GB` are refused rather than guessed at.
 */
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;
const SIZE = /^(\d+(?:\.\d+)?) ?(?:([KMGT])(?:iB)?|B)?$/i;

export const SIZE_FORMS = '512M, 2G, 1.5GiB, 1TiB or plain bytes';

/** The text is no size; the message is one line and shows the accepted forms. */
export class SizeError extends Error {
  override readonly name = 'SizeError';
}

/** Bytes meant by `text`; fractions of a byte are cut off. Throws SizeError. */
export function parseSize(text: string): number {
  const [, digits, letter] = SIZE.exec(text.trim()) ?? [];
  if (digits === undefined || (letter === undefined && digits.includes('.'))) {
    throw new SizeError(`${quote(text)} is not a size: write ${SIZE_FORMS}`);
  }
  const exponent = letter === undefined ? 0 : ' KMGT'.indexOf(letter.toUpperCase());
  const bytes = Math.floor(Number(digits) * 1024 ** exponent);
  if (!Number.isSafeInteger(bytes)) {
    throw new SizeError(`${quote(text)} is too large: the largest size is 8191T`);
  }
  return bytes;
}

/** Smaller numbers without a unit are taken for a mistake: no guest lives in so few bytes. */
const LEAST_BARE_BYTES = 2 ** 20;
/** Of MiB: tools that count guests' memory in KiB (libvirt, /proc) give numbers that are larger than this. */
const MOST_BARE_MIB = 16 * 1024;

/** A number without a unit that is too small to be meant in bytes, with the unit that it most likely lacks; null: it is no such number. */
export function lackedUnit(text: string): string | null {
  const digits = text.trim();
  const number = Number(digits);
  if (!/^\d+$/.test(digits) || number >= LEAST_BARE_BYTES) return null;
  return `${number}${number > MOST_BARE_MIB ? 'K' : 'M'}`;
}

/** `1.5 GiB`, `512 MiB`, `0 B`: three or four significant digits, which parseSize reads back. */
export function formatSize(bytes: number): string {
  return format(bytes, Math.round);
}

/** The same, never more than `bytes`: for a size that is the most there is. */
export function formatMost(bytes: number): string {
  return format(bytes, Math.floor);
}

/** The same, never less than `bytes`: for a size that is the least there is. */
export function formatLeast(bytes: number): string {
  return format(bytes, Math.ceil);
}

function format(bytes: number, round: (value: number) => number): string {
  const rounded = (value: number): number => (value < 100 ? round(value * 10) / 10 : round(value));
  let value = bytes;
  let unit = 0;
  // 1023.96 MiB would be shown as 1024 MiB: move on when the rounded value reaches the next unit.
  while (rounded(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${rounded(value)} ${UNITS[unit] ?? 'B'}`;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text);
}
