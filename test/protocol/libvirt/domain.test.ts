// What libvirt says of a domain: its XML, and its figures as libvirt-dbus sent them.
import fc from 'fast-check';
import t from 'tap';
import { DbusMessages } from '../../../protocol/dbus/messages.js';
import {
  decodeDomainStats,
  decodeMemoryStats,
  domainWords,
  stoppedWords,
} from '../../../protocol/libvirt/domain.js';
import { elementAt, parseXml, XmlError } from '../../../protocol/libvirt/xml.js';
import { seen } from '../../support/dbus-frames.js';

const GUEST_STATS = {
  VIRTIO_BALLOON_S_SWAP_IN: 0,
  VIRTIO_BALLOON_S_SWAP_OUT: 0,
  VIRTIO_BALLOON_S_MAJFLT: 0,
  VIRTIO_BALLOON_S_MINFLT: 190,
  VIRTIO_BALLOON_S_MEMFREE: 452_496 * 1024,
  VIRTIO_BALLOON_S_MEMTOT: 475_860 * 1024,
  VIRTIO_BALLOON_S_AVAIL: 446_952 * 1024,
  VIRTIO_BALLOON_S_CACHES: 2836 * 1024,
  VIRTIO_BALLOON_S_HTLB_PGALLOC: 0,
  VIRTIO_BALLOON_S_HTLB_PGFAIL: 0,
};

function valueOf(name: 'memoryStats' | 'domainStats'): unknown {
  const [message] = new DbusMessages().push(seen(name));
  if (message?.kind !== 'answer') throw new Error(`no answer in ${name}`);
  return message.values[0];
}

void t.test('the figures of a domain are in bytes, by the names of virtio', (t) => {
  const memory = decodeMemoryStats(valueOf('memoryStats'));
  t.equal(memory.guestBytes, 2 ** 29);
  t.equal(memory.stats.sentAtSeconds, 1_795_916_815);
  t.same(Object.fromEntries(memory.stats.values), GUEST_STATS);
  const look = decodeDomainStats(valueOf('domainStats'));
  t.match(look, { ramBytes: 2 ** 29, guestBytes: 2 ** 29, vmRuns: true });
  t.same(look.stats, memory.stats);
  t.same(decodeDomainStats([['state.state', 3]]), {
    ramBytes: null,
    guestBytes: null,
    vmRuns: false,
    stats: { values: new Map(), sentAtSeconds: 0 },
  });
  t.same(decodeMemoryStats('much').guestBytes, null);
  t.same(decodeMemoryStats([[6, -1], [6], 7]).guestBytes, null, 'no size that cannot be');
  t.equal(stoppedWords(3), 'the domain was migrated to another host');
  t.equal(stoppedWords(99), 'the domain ended');
  t.end();
});

const XML = `<?xml version='1.0'?>
<!-- of web-1 -->
<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>a&amp;b</name>
  <uuid>0c91342d-9084-4cbb-8c6b-2070d3a1dc91</uuid>
  <metadata><devices><memballoon model='none'/></devices><name>other</name></metadata>
  <description><![CDATA[<memballoon model='none'/>]]></description>
  <devices>
    <memory model="virtio-mem"><target/></memory>
    <memballoon model='virtio-transitional' autodeflate='on'>
      <stats period='7'/>
    </memballoon>
  </devices>
</domain>
`;

void t.test('the balloon of a domain, by its own elements alone', (t) => {
  t.same(domainWords(XML), {
    name: 'a&b',
    uuid: '0c91342d-9084-4cbb-8c6b-2070d3a1dc91',
    balloon: { deflatesOnOom: true, periodSeconds: 7 },
    hasVirtioMem: true,
  });
  t.equal(domainWords(XML.replace('virtio-transitional', 'none')).balloon, null);
  t.equal(domainWords(XML.replace(/ {4}<memballoon[^]*<\/memballoon>/, '')).balloon, null);
  t.equal(domainWords(XML.replace("'7'", "'x'")).balloon?.periodSeconds, 0);
  t.end();
});

void t.test('an element is where it says', (t) => {
  const root = parseXml(XML);
  const balloon = elementAt(root, 'devices', 'memballoon');
  t.equal(XML.slice(balloon?.inner, balloon?.innerEnd).trim(), "<stats period='7'/>");
  t.match(XML.slice(balloon?.start, balloon?.end), /^<memballoon [^]*<\/memballoon>$/);
  t.equal(elementAt(root, 'devices', 'disk'), undefined);
  t.equal(elementAt(root, 'description')?.text, "<memballoon model='none'/>");
  t.end();
});

void t.test('texts that are no XML, or more than libvirt writes', (t) => {
  for (const text of [
    '',
    'web-1',
    '<a>',
    '<a></b>',
    '<a/><b/>',
    '<a',
    '</a>',
    '<a b=c/>',
    '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    '<a>'.repeat(100) + '</a>'.repeat(100),
  ])
    t.throws(() => parseXml(text), XmlError, text.slice(0, 40));
  fc.assert(
    fc.property(fc.nat(XML.length), fc.nat(XML.length), fc.string({ maxLength: 5 }), (from, to, between) => {
      try {
        domainWords(XML.slice(0, from) + between + XML.slice(to));
      } catch (error) {
        t.type(error, XmlError);
      }
    }),
    { numRuns: 1000 },
  );
  t.end();
});
