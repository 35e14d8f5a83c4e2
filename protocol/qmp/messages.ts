/** The messages of QMP, QEMU's machine protocol (docs/interop/qmp-spec.rst). */
import { VmmError } from '../adopted.js';

export type Json = Readonly<Record<string, unknown>>;

/** A message of the server. */
export type QmpMessage =
  /** The first one: QEMU's version as it says it, such as `11.1.3`. */
  | { readonly kind: 'greeting'; readonly version: string }
  | { readonly kind: 'answer'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'refusal'; readonly id: unknown; readonly error: VmmError }
  | { readonly kind: 'event'; readonly name: string; readonly data: Json };

/** Words of a peer that go into messages are cut. */
const MAX_WORDS = 200;

/** Throws VmmError when the text is no message of QMP. */
export function decodeMessage(text: string): QmpMessage {
  const message = asObject(parse(text));
  if ('QMP' in message) return { kind: 'greeting', version: versionOf(message) };
  const { id, event, error } = message;
  if (typeof event === 'string') return { kind: 'event', name: event, data: asObject(message['data']) };
  if ('return' in message) return { kind: 'answer', id, value: message['return'] };
  if (error !== undefined) {
    const { class: errorClass, desc } = asObject(error);
    return { kind: 'refusal', id, error: new VmmError(words(desc), words(errorClass)) };
  }
  throw new VmmError('the peer sends JSON objects that are no messages of QMP');
}

/** One command, as it is sent. */
export function encodeCommand(id: number, command: string, args: Json): string {
  return `${JSON.stringify({ execute: command, arguments: args, id })}\n`;
}

/** The value as an object; one without fields where it is none. */
export function asObject(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

/** A size or count that can be true; null: it is none. */
export function asCount(value: unknown): number | null {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : null;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new VmmError('the peer sends something else than JSON objects');
  }
}

function versionOf(message: Json): string {
  const { qemu } = asObject(asObject(message['QMP'])['version']);
  const { major, minor, micro } = asObject(qemu);
  return [major, minor, micro].map((part) => asCount(part) ?? '?').join('.');
}

/** Safe for logs and terminals. */
function words(value: unknown): string {
  return typeof value === 'string' ? value.replaceAll(/[\p{C}]/gu, ' ').slice(0, MAX_WORDS) : 'no words';
}
