/**
 * The changes of a domain that give it balloond's own device in place of QEMU's balloon, and the changes back (docs/libvirt.md says the
 * same for a reader). All else of the domain stays letter for letter.
 */
import { elementAt, parseXml, XmlError, type XmlElement } from './xml.js';

const NAMESPACE = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'";
const COMMAND_LINE = 'qemu:commandline';
/** What balloond's own device has among the words for QEMU, and no other one. */
const OWN_WORD = /^socket,id=balloon,|"driver":"vhost-user-test-device-pci","id":"balloon"/;
/** Devices that need the memory of the domain shared, too. */
const SHARES = /type=['"](?:vhostuser|virtiofs|vhost-user)['"]|model=['"]vhost/;

/** A piece of the text, and the text in its place. */
interface Edit {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

/** The domain with the device, for which QEMU gets these words. Throws XmlError, also where the domain has the device. */
export function withBalloon(xml: string, words: readonly string[]): string {
  const domain = parseXml(xml);
  if (ownWords(domain).length > 0) throw new XmlError("it has balloond's own device already");
  const devices = elementAt(domain, 'devices');
  if (devices === undefined) throw new XmlError('it has no devices');
  const balloon = elementAt(devices, 'memballoon');
  const none = "<memballoon model='none'/>";
  const args = words.map((word) => `    <qemu:arg value='${escaped(word)}'/>\n`).join('');
  const line = elementAt(domain, COMMAND_LINE);
  const edits = [
    ...(domain.attributes.has('xmlns:qemu')
      ? []
      : [insert(domain.start + '<domain'.length, ` ${NAMESPACE}`)]),
    ...shared(xml, domain),
    balloon === undefined
      ? append(xml, devices, `${none}\n  `)
      : { from: balloon.start, to: balloon.end, text: none },
    line === undefined
      ? append(xml, domain, `<${COMMAND_LINE}>\n${args}  </${COMMAND_LINE}>\n`)
      : append(xml, line, `${args.trim()}\n  `),
  ];
  return edited(xml, edits);
}

/** The domain with QEMU's own balloon again. Throws XmlError, also where the domain has no such device. */
export function withoutBalloon(xml: string): string {
  const domain = parseXml(xml);
  const own = ownWords(domain);
  if (own.length === 0) throw new XmlError('it has no device of balloond');
  const line = elementAt(domain, COMMAND_LINE);
  const balloon = elementAt(domain, 'devices', 'memballoon');
  const isEmpty = line !== undefined && line.children.length === own.length;
  const edits = (isEmpty ? [line] : own).map((element) => removed(xml, element));
  if (isEmpty) {
    const at = xml.slice(domain.start, domain.inner).search(/\s+xmlns:qemu=/);
    const [attribute = ''] = /^\s+xmlns:qemu=(?:'[^']*'|"[^"]*")/.exec(xml.slice(domain.start + at)) ?? [];
    edits.push({ from: domain.start + at, to: domain.start + at + attribute.length, text: '' });
  }
  if (balloon?.attributes.get('model') === 'none')
    edits.push({ from: balloon.start, to: balloon.end, text: "<memballoon model='virtio'/>" });
  return edited(xml, [...edits, ...private_(xml, domain)]);
}

/** Makes the memory of the domain one that the daemon can see. */
function shared(xml: string, domain: XmlElement): Edit[] {
  const [source, access] = ["<source type='memfd'/>", "<access mode='shared'/>"];
  const backing = elementAt(domain, 'memoryBacking');
  if (backing === undefined) {
    const before = elementAt(domain, 'currentMemory') ?? elementAt(domain, 'memory');
    if (before === undefined) throw new XmlError('it has no memory');
    return [insert(before.end, `\n  <memoryBacking>\n    ${source}\n    ${access}\n  </memoryBacking>`)];
  }
  const wanted = [
    [elementAt(backing, 'source'), 'type', 'memfd', source],
    [elementAt(backing, 'access'), 'mode', 'shared', access],
  ] as const;
  const missing = wanted.filter(([element]) => element === undefined).map(([, , , text]) => `${text}\n  `);
  const wrong = wanted.flatMap(([element, attribute, value, text]): Edit[] =>
    element === undefined || element.attributes.get(attribute) === value
      ? []
      : [{ from: element.start, to: element.end, text }],
  );
  return missing.length === 0 ? wrong : [...wrong, append(xml, backing, missing.join('  '))];
}

/** Takes that back, where no other device needs it. */
function private_(xml: string, domain: XmlElement): Edit[] {
  const backing = elementAt(domain, 'memoryBacking');
  const devices = elementAt(domain, 'devices');
  if (backing === undefined || (devices !== undefined && SHARES.test(xml.slice(devices.start, devices.end))))
    return [];
  const own = backing.children.filter(
    ({ name, attributes }) =>
      (name === 'source' && attributes.get('type') === 'memfd') ||
      (name === 'access' && attributes.get('mode') === 'shared'),
  );
  return (own.length === backing.children.length ? [backing] : own).map((element) => removed(xml, element));
}

/** The words of balloond's own device, each with the option before it. */
function ownWords(domain: XmlElement): XmlElement[] {
  const words = elementAt(domain, COMMAND_LINE)?.children ?? [];
  return words.flatMap((word, n) => {
    const before = words[n - 1];
    const isOwn = word.name === 'qemu:arg' && OWN_WORD.test(word.attributes.get('value') ?? '');
    return isOwn && before !== undefined ? [before, word] : [];
  });
}

function insert(at: number, text: string): Edit {
  return { from: at, to: at, text };
}

/** `text` behind the children of the element. */
function append(xml: string, { name, innerEnd, end }: XmlElement, text: string): Edit {
  if (xml.slice(0, end).endsWith('/>')) return { from: end - 2, to: end, text: `>\n  ${text}</${name}>` };
  const spaces = /\s*$/.exec(xml.slice(0, innerEnd))?.[0].length ?? 0;
  // The last line of the element is that of its end tag.
  const isBroken = xml.slice(innerEnd - spaces, innerEnd).includes('\n');
  return insert(innerEnd, isBroken ? `  ${text}` : text);
}

function removed(xml: string, { start, end }: XmlElement): Edit {
  const spaces = /\s*$/.exec(xml.slice(0, start))?.[0].length ?? 0;
  return { from: start - spaces, to: end, text: '' };
}

function edited(xml: string, edits: readonly Edit[]): string {
  const last = [...edits].sort((a, b) => b.from - a.from);
  return last.reduce((text, edit) => text.slice(0, edit.from) + edit.text + text.slice(edit.to), xml);
}

/** For attributes in single quotes. */
function escaped(text: string): string {
  return text.replaceAll(/[&<>']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
