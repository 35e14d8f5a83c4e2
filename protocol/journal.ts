/**
 * Entries of systemd's journal as it takes them on its socket (systemd.io/JOURNAL_NATIVE_PROTOCOL): fields, each
 * `NAME=value` on a line, or, where the value has lines of its own, NAME, its length (64 bits, little endian) and it.
 */
export type JournalEntry = Readonly<Record<string, string | number>>;

export const JOURNAL_SOCKET = '/run/systemd/journal/socket';

/** syslog(3); the journal knows no others. */
export const PRIORITIES = { debug: 7, info: 6, warn: 4, error: 3 } as const;

/** What the journal takes as a name of a field; those that begin with an underscore are its own. */
const NAME = /^[A-Z][A-Z0-9_]{0,63}$/;

/** Throws RangeError for a name that the journal would leave out. */
export function encodeJournalEntry(entry: JournalEntry): Buffer {
  return Buffer.concat(Object.entries(entry).map(([name, value]) => encodeField(name, String(value))));
}

function encodeField(name: string, value: string): Buffer {
  if (!NAME.test(name)) throw new RangeError(`${JSON.stringify(name)} is no name of a journal field`);
  if (!value.includes('\n')) return Buffer.from(`${name}=${value}\n`);
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, bytes, Buffer.from('\n')]);
}

/** `actualBytes` is BALLOOND_ACTUAL_BYTES. */
export function journalFieldName(name: string): string {
  const words = name.replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2').replaceAll(/[^A-Za-z0-9]+/g, '_');
  return `BALLOOND_${words.toUpperCase()}`.slice(0, 64);
}

/** Whether stderr is what the service manager connected to the journal: JOURNAL_STREAM names its device and inode. */
export function isJournalStream(
  stream: string | undefined,
  { dev, ino }: { dev: bigint; ino: bigint },
): boolean {
  return stream === `${dev}:${ino}`;
}
