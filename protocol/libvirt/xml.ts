/**
 * XML as libvirt writes it and takes it: elements, attributes and text, with the place of each element, so that a change leaves
 * all else as it was. Documents with a DTD are refused, so there are no entities but the five that XML has.
 */

/** The text is no XML that this project reads: the end of a sentence. */
export class XmlError extends Error {
  override readonly name = 'XmlError';
}

export interface XmlElement {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  /** The text directly in it, without that of its children. */
  readonly text: string;
  /** Its first letter, the letter behind its start tag, the first letter of its end tag, and the letter behind that. */
  readonly start: number;
  readonly inner: number;
  readonly innerEnd: number;
  readonly end: number;
}

const MAX_DEPTH = 64;
const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };
/** Comments, instructions, CDATA, and tags. */
const MARKUP =
  /<!--[^]*?-->|<\?[^]*?\?>|<!\[CDATA\[([^]*?)\]\]>|<(\/?)([\w:.-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>/gy;
const ATTRIBUTE = /([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g;

interface Open {
  name: string;
  attributes: Map<string, string>;
  children: XmlElement[];
  text: string;
  start: number;
  inner: number;
}

/** The outermost element. Throws XmlError. */
export function parseXml(text: string): XmlElement {
  const open: Open[] = [];
  let root: XmlElement | null = null;
  let at = 0;
  while (at < text.length) {
    const next = text.indexOf('<', at);
    const words = text.slice(at, next < 0 ? text.length : next);
    const inside = open.at(-1);
    if (inside !== undefined) inside.text += unescaped(words);
    else if (words.trim() !== '') throw new XmlError('there is text outside of all elements');
    if (next < 0) break;
    MARKUP.lastIndex = next;
    const found = MARKUP.exec(text);
    if (found === null) throw new XmlError(`it cannot be read from its letter ${next} on`);
    at = MARKUP.lastIndex;
    const [, data, ends, name, attributes = '', isEmpty] = found;
    if (data !== undefined && inside !== undefined) inside.text += data;
    if (name === undefined) continue;
    if (ends === '') {
      if (open.length >= MAX_DEPTH) throw new XmlError(`it has more than ${MAX_DEPTH} levels`);
      if (root !== null) throw new XmlError('there is a second outermost element');
      open.push({
        name,
        attributes: attributesOf(attributes),
        children: [],
        text: '',
        start: next,
        inner: at,
      });
    }
    if (ends === '' && isEmpty === '') continue;
    const last = open.pop();
    if (last?.name !== name) throw new XmlError(`</${name}> ends an element that did not begin`);
    const element = { ...last, innerEnd: ends === '' ? at : next, end: at };
    const parent = open.at(-1);
    if (parent === undefined) root = element;
    else parent.children.push(element);
  }
  if (root === null) throw new XmlError('it ends too early');
  return root;
}

/** The first element that these names lead to, from the children of `element` on; undefined: there is none. */
export function elementAt(element: XmlElement, ...names: readonly string[]): XmlElement | undefined {
  return names.reduce<XmlElement | undefined>(
    (inside, name) => inside?.children.find((child) => child.name === name),
    element,
  );
}

function attributesOf(text: string): Map<string, string> {
  const found = [...text.matchAll(ATTRIBUTE)];
  return new Map(found.map(([, name = '', one, other]) => [name, unescaped(one ?? other ?? '')]));
}

function unescaped(text: string): string {
  return text.replaceAll(
    /&(?:#(\d+)|#x([0-9a-fA-F]+)|(\w+));/g,
    (whole: string, decimal?: string, hex?: string, name = '') => {
      const code = Number(decimal ?? (hex === undefined ? NaN : `0x${hex}`));
      if (Number.isInteger(code) && code <= 0x10ffff) return String.fromCodePoint(code);
      return ENTITIES[String(name)] ?? whole;
    },
  );
}
