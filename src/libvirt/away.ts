/** What an operator does when libvirt cannot be asked. */
import { existsSync } from 'node:fs';
import type { VmmError } from '../../protocol/adopted.js';
import type { NextStep } from '../../protocol/control/refusal.js';

/** The beginning of the words on a call that libvirt does not answer. */
export const SILENT = 'libvirt does not answer';

/** What balloond may ask of libvirt-dbus. */
const BUS_FILE = '/usr/share/dbus-1/system.d/balloond.conf';

/** The next step after such an error. */
export function awayStep({ message, errorClass }: VmmError): NextStep {
  if (errorClass === null) {
    return message.startsWith(SILENT)
      ? 'look for a QEMU that hangs, or restart libvirtd (systemctl restart libvirtd), whose VMs go on'
      : 'start the bus (systemctl start dbus.socket), or name its socket in [libvirt]';
  }
  if (errorClass.endsWith('.ServiceUnknown')) return 'run `apt install libvirt-dbus`';
  if (errorClass.endsWith('.AccessDenied') && existsSync(BUS_FILE))
    return 'run `systemctl reload dbus` for a bus that read balloond.conf before its user was there, or add the user of the daemon to the group libvirt';
  if (errorClass.endsWith('.AccessDenied'))
    return "add balloond's file to /usr/share/dbus-1/system.d, or add the user of the daemon to the group libvirt";
  const unit = message.includes('virtqemud') ? 'virtqemud' : 'libvirtd';
  return `start ${unit} (systemctl start ${unit}.socket)`;
}
