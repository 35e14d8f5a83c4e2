/** Sections of balloond(8) that messages of the daemon name. */
import { EVENT_NAMES, EVENTS } from '../../protocol/control/events.js';
import type { Entry } from './roff.js';

export const LIMIT_INTRODUCTION =
  'Limits (`balloonctl limit`, and the force of the policy) are set on the cgroup of the systemd unit that holds the VMM, or else on the nearest cgroup that counts memory. All processes in it have to be the VMM or its descendants, unless `shared-cgroup` says otherwise. `balloonctl show` names the cgroup, or says why there is none:';

export const LIMIT_WORDS: readonly Entry[] = [
  {
    term: 'cgroup v1 holds the memory controller',
    text: 'The host is in hybrid or legacy mode. Boot it with `systemd.unified_cgroup_hierarchy=1`.',
  },
  { term: 'has no memory controller', text: 'A cgroup above has no `+memory` in `cgroup.subtree_control`.' },
  {
    term: 'holds process N as well',
    text: 'A limit would hit that process. Start the VM in a scope of its own.',
  },
  {
    term: 'the VMM is in the root cgroup, the daemon itself is in',
    text: 'Start the VM in a scope of its own.',
  },
  {
    term: "outside this daemon's cgroup namespace",
    text: 'The daemon runs in a container with a view of its own.',
  },
  { term: 'cannot be written (EACCES)', text: 'Start `balloond-limits.socket`.' },
  { term: 'cannot be written (EROFS)', text: 'Cgroups are mounted read-only for the daemon.' },
  {
    term: 'the cgroup is gone',
    text: 'The cgroup was removed, or the VM moved to another one. Set the limits again.',
  },
];

export const METRICS_ON_TCP =
  'The unit of the service forbids the network. Run `systemctl edit balloond.service`, let in what `metrics` needs as below, and restart the service. For a client elsewhere, listen on an address of this host and add its network to `IPAddressAllow=`. Without any of this, `/metrics` is on the control socket.';

export const METRICS_DROP_IN = [
  '[Service]',
  'PrivateNetwork=no',
  'RestrictAddressFamilies=AF_INET AF_INET6',
  'IPAddressAllow=localhost',
].join('\n');

export const EVENT_INTRODUCTION =
  'Each line of the log names an event. `journalctl --unit balloond --catalog` shows the same text below it.';

export function eventEntries(): Entry[] {
  return EVENT_NAMES.map((name) => {
    const { level, help, action } = EVENTS[name];
    return { term: `${name} (${level})`, text: action === null ? help : `${help} ${action}` };
  });
}
