// The changes of a domain for balloond's own device, and back: each alone, and nothing else.
import t from 'tap';
import { withBalloon, withoutBalloon } from '../../../protocol/libvirt/enable.js';
import { domainWords } from '../../../protocol/libvirt/domain.js';
import { XmlError } from '../../../protocol/libvirt/xml.js';
import { libvirtWords } from '../../../src/control/cli/qemu-args.js';

const WORDS = libvirtWords('/run/balloond/balloond.sock');
const PLAIN = `<domain type='kvm'>
  <name>web-1</name>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <memballoon model='virtio'>
      <address type='pci' slot='0x05'/>
    </memballoon>
  </devices>
</domain>
`;

void t.test('the four changes', (t) => {
  t.equal(
    withBalloon(PLAIN, WORDS),
    `<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' type='kvm'>
  <name>web-1</name>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <vcpu placement='static'>2</vcpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-chardev'/>
    <qemu:arg value='socket,id=balloon,path=/run/balloond/balloond.sock'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='{"driver":"vhost-user-test-device-pci","id":"balloon","chardev":"balloon","virtio-id":5,"num_vqs":7,"vq_size":256,"config_size":44,"addr":"0x19"}'/>
  </qemu:commandline>
</domain>
`,
  );
  t.end();
});

void t.test('and back, whatever else the domain has', (t) => {
  const back = (xml: string): string => withoutBalloon(withBalloon(xml, WORDS));
  const bare = PLAIN.replace(/<memballoon [^]*<\/memballoon>/, "<memballoon model='virtio'/>");
  t.equal(back(PLAIN), bare);
  t.equal(back(bare), bare);
  const huge = bare.replace('<vcpu', '<memoryBacking>\n    <hugepages/>\n  </memoryBacking>\n  <vcpu');
  t.equal(back(huge), huge, 'its pages stay huge');
  t.match(withBalloon(huge, WORDS), /<hugepages\/>[^]*<source type='memfd'\/>[^]*<access mode='shared'\/>/);
  const own = bare
    .replace('<domain ', "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ")
    .replace(
      '</domain>',
      "  <qemu:commandline>\n    <qemu:arg value='-no-hpet'/>\n  </qemu:commandline>\n</domain>",
    );
  t.equal(back(own), own, 'its own arguments stay');
  const files = bare.replace('<emulator>', "<filesystem><driver type='virtiofs'/></filesystem><emulator>");
  t.match(back(files), /<access mode='shared'\/>/, 'another device needs the memory shared');
  const anonymous = bare.replace('<vcpu', "<memoryBacking><source type='anonymous'/></memoryBacking><vcpu");
  t.match(withBalloon(anonymous, WORDS), /<source type='memfd'\/>/);
  t.notMatch(withBalloon(anonymous, WORDS), /anonymous/);
  const empty = bare.replace('<vcpu', '<memoryBacking/><vcpu');
  t.match(withBalloon(empty, WORDS), /<memoryBacking>[^]*<access mode='shared'\/>[^]*<\/memoryBacking>/);
  for (const xml of [PLAIN, huge, own, files, anonymous, empty]) {
    t.equal(domainWords(withBalloon(xml, WORDS)).balloon, null);
    t.not(domainWords(back(xml)).balloon, null);
    t.throws(() => withBalloon(withBalloon(xml, WORDS), WORDS), /balloond's own device already/);
    t.throws(() => withoutBalloon(xml), /no device of balloond/);
  }
  t.throws(() => withBalloon('<domain/>', WORDS), XmlError);
  t.end();
});
