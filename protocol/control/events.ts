/**
 * The catalog of events: every line that the daemon logs carries one of these names in `event`, and `vm` where the
 * event is about one VM. Names are stable: scripts match on them. docs/events.md shows the same table.
 */

import { DAEMON_EVENTS } from './daemon-events.js';
import type { EventKind } from './event-kind.js';

export type { EventLevel } from './event-kind.js';

/** For a VM of `vm-returns`, after a colon or an arrow. */
export const RETURNS_STEP = 'look in the log of its VMM for why the connection ends, or stop that VM';

export const EVENTS = {
  'daemon-started': { level: 'info', help: 'The daemon started.', action: null },
  'not-held': {
    level: 'warn',
    help: 'Nobody holds the VMs while no daemon runs, or only over restarts: when they are let go of, QEMU aborts at the next reboot of its guest.',
    action:
      'Do as the message says: start the daemon by its unit under systemd 254 or newer, or with `--supervise`. Until then, end the daemon only when no VM runs.',
  },
  'daemon-stopping': { level: 'info', help: 'The daemon is shutting down.', action: null },
  listening: { level: 'info', help: 'A socket is open for VMMs or for control clients.', action: null },
  'vm-connected': { level: 'info', help: 'A VMM connected its balloon device.', action: null },
  'vm-resumed': {
    level: 'info',
    help: 'This daemon goes on serving a VM that the daemon before it served, from where that daemon ended.',
    action: null,
  },
  'resume-failed': {
    level: 'error',
    help: 'This daemon cannot go on with a VM that the daemon before it served. Everything that was handed over is kept, untouched.',
    action:
      'Do not reboot the VM. Start the version of the daemon that served the VM: that version goes on with the VM, whatever was started in between. If this is that version, report this line, and restart the VM when it suits.',
  },
  'hand-over-failed': {
    level: 'error',
    help: 'The daemon cannot hand a VM or a socket over to the next daemon: VMs that connect now lose their balloon when this daemon ends.',
    action:
      'Raise FileDescriptorStoreMax= in the unit (20 for each VM), or do not restart the daemon while these VMs run.',
  },
  'events-set-aside': {
    level: 'warn',
    help: 'This daemon cannot read events that the daemon before it remembered: another build wrote these events, or they are damaged. VMs are not affected.',
    action: 'Read these events in the log (`journalctl --unit balloond`).',
  },
  'name-taken': {
    level: 'warn',
    help: 'A VM connected under the name of another VM that is still connected, or that was adopted and lives, so this VM is called by that name with a number behind it. The orders and the `[[vm]]` table of the name hold for the other VM alone.',
    action:
      'Give each VM a name of its own. Where both are the same VM, started again before the VMM from before had ended, stop the VM and start it again.',
  },
  'orders-applied': {
    level: 'info',
    help: 'A device connected of a VM for which an operator gave orders before (a target, an inhibit, limits, a pause of the policy), or the daemon started while the policy is paused for all VMs, or in a mode that an operator set: these orders hold, for this device too. The event names the device and the orders.',
    action: 'Nothing, if the VM should have them; `balloonctl show` says how each order is taken back.',
  },
  'orders-taken-back': {
    level: 'info',
    help: 'An operator took all orders for a VM of this name back at once, also where no such VM is connected. The event names them.',
    action: 'Nothing.',
  },
  'orders-set-aside': {
    level: 'warn',
    help: 'This daemon cannot read the orders for VMs that a daemon before it wrote down: the copy is damaged, or a newer build wrote it. A file in the state directory is moved aside. VMs that run keep the orders that their records hold.',
    action: 'Do what the event says; give the orders again that `balloonctl show` no longer lists.',
  },
  'orders-not-kept': {
    level: 'warn',
    help: 'The daemon cannot write down the orders for VMs, on disk or for the next daemon. The orders hold all the same, until the host, the keeper (--supervise) or the daemon ends. The event comes once for each reason.',
    action:
      'Mend the cause that the event names; the daemon tries the disk again each minute and with each order.',
  },
  'orders-kept': {
    level: 'info',
    help: 'The orders for VMs are on disk again, after they could not be written (`orders-not-kept`).',
    action: 'Nothing.',
  },
  'daemon-ended': {
    level: 'warn',
    help: 'The daemon ended; its keeper (--supervise) holds its VMs meanwhile and starts the daemon again. The keeper logs this event; `balloonctl events` does not have it.',
    action: 'Read the last lines of the daemon; report a crash.',
  },
  'daemon-stuck': {
    level: 'error',
    help: 'The daemon gave its keeper no sign of life; the keeper kills the daemon and starts it again. The keeper logs this event; `balloonctl events` does not have it.',
    action: 'Report this line together with the lines before it.',
  },
  'program-gone': {
    level: 'error',
    help: 'The daemon ended, and its keeper (--supervise) cannot start it again, because the program is not there any more: the package was removed, or the folder was moved. The keeper holds its VMs, which wait at their next request, and looks for the program every two seconds.',
    action: 'Install balloond again at the path that the event names; do not reboot VMs before.',
  },
  'features-negotiated': { level: 'info', help: 'The guest driver acknowledged features.', action: null },
  'memory-mapped': {
    level: 'info',
    help: 'The table of shared guest memory changed: its regions and bytes.',
    action: null,
  },
  'ram-changed': {
    level: 'info',
    help: 'The memory that the guest has, its balloon included, became known or is another size now: by the own word of the guest, the command line of QEMU and the memory that the VMM shares. Targets and the policy go by it.',
    action: null,
  },
  'vm-ready': { level: 'info', help: 'The guest driver started; its rings run.', action: null },
  'vm-stopped': {
    level: 'info',
    help: 'The guest driver stopped or reset the device, the VM was paused, or its guest sleeps; the target is kept for its return.',
    action: null,
  },
  'device-unplugged': {
    level: 'info',
    help: 'The VMM took the device out of the VM and kept its connection: the guest has all of its memory, and QEMU can migrate the VM. A device that is plugged in on the same connection is served again.',
    action: null,
  },
  'vm-returns': {
    level: 'warn',
    help: 'VMs of one name connected ten times within a minute: the VMM ends its connections, or the daemon drops them. Other VMs are not affected. The event comes once in each such minute; of the other events of that name, the log has some.',
    action: 'Look in the log of the VMM for why its connection ends, or stop that VM.',
  },
  'vm-disconnected': { level: 'info', help: 'The VMM closed its connection.', action: null },
  'size-moved': {
    level: 'debug',
    help: 'The balloon target follows the working set of the guest (`size = "working-set"`); the event says why it moved.',
    action: null,
  },
  'target-changed': {
    level: 'info',
    help: 'The target of the balloon, or the limit of the page cache balloon, changed; the event says who changed it, from and to how many bytes.',
    action: null,
  },
  'target-clamped': {
    level: 'warn',
    help: 'A target that was ordered before the memory of the guest was known, or was this size, asks for more than the guest has or would leave it less than it needs, and was cut.',
    action: 'Ask for a size that fits the `ramBytes` that `balloonctl show` reports, or add `--force`.',
  },
  verdict: {
    level: 'warn',
    help: 'Something is wrong with the VM that only time shows, such as a balloon that gets no nearer to its target: the verdict of `balloonctl show`. The event comes up to 32 s after the verdict; each other verdict has an event of its own.',
    action: 'Take the step that the event names.',
  },
  'verdict-over': {
    level: 'info',
    help: 'The cause of the last `verdict` is over, or another event tells of a graver one.',
    action: null,
  },
  'target-reached': { level: 'info', help: 'The balloon is as large as its target.', action: null },
  inhibited: {
    level: 'warn',
    help: 'Discarding stopped for this VM: its balloon moves, but the host gets no memory back. The daemon asks a page cache balloon to give all its pages up (LOCK); that balloon grows again afterwards.',
    action: 'Remove the reason that the event names; after an inhibit by hand, run `balloonctl allow`.',
  },
  allowed: {
    level: 'info',
    help: 'Discarding resumed; the daemon now discards the pages that went into the balloon meanwhile, where the driver must tell before it uses them. Free pages that the guest reported meanwhile stay on the host.',
    action: null,
  },
  'policy-changed': {
    level: 'info',
    help: 'The policy was paused or resumed, for one VM or all, or an operator set its mode.',
    action: null,
  },
  'policy-took': {
    level: 'info',
    help: 'The policy took memory from this VM; the event says how many bytes, for which VM and why.',
    action: null,
  },
  'policy-gave': {
    level: 'info',
    help: 'The policy gave memory to this VM; the event says how many bytes, from which VM and why.',
    action: null,
  },
  'policy-cache-limit': {
    level: 'info',
    help: 'The policy set how much memory the page cache balloon of this VM may hold, from and to how many bytes: nothing while the host has room, as much more as the host lacks before it is short, and all memory but the floor of the VM when it is short.',
    action: null,
  },
  'policy-forced': {
    level: 'warn',
    help: 'A VM did not yield in its grace time, so the policy lowers the limits of its cgroup (memory.high in steps, then memory.max), or kills the VM where its band allows that.',
    action: 'Look at the verdict of the VM; `balloonctl policy pause VM` ends the force.',
  },
  'policy-released': {
    level: 'info',
    help: 'The policy undid one step of force; the event says why.',
    action: null,
  },
  'policy-advice': {
    level: 'info',
    help: 'The policy only observes, and names the action that it would take. The event comes when the advice changes.',
    action: null,
  },
  'policy-degraded': {
    level: 'warn',
    help: 'The policy works with less than it needs, or with less than its configuration says; the event says what is missing and what the policy does instead.',
    action: 'Mend the cause that the event names.',
  },
  'reserve-unmet': {
    level: 'warn',
    help: 'For 10 s, the host has had less memory available than the reserve of the policy, and would have less even if the VMs gave all that may be taken from them. The event says how much that is.',
    action:
      'Do what the event says; otherwise the guests have less than they need, or the host runs out of memory.',
  },
  'reserve-met': {
    level: 'info',
    help: 'The host has its reserve again after `reserve-unmet`, or the policy does not ask for it any more.',
    action: null,
  },
  'limit-set': {
    level: 'info',
    help: "A limit of the VM's cgroup changed; the event says which limit, from and to how many bytes (null: no limit), and why. For a limit that follows, the event also says how much memory the guest may use.",
    action: null,
  },
  'limit-failed': {
    level: 'error',
    help: "The daemon cannot write the limits of a VM's cgroup, or the cgroup is gone; the daemon serves the VM as before. The event comes once for each reason.",
    action: 'Do what the event says, then set the limits again with `balloonctl limit`.',
  },
  'cgroup-unknown': {
    level: 'info',
    help: 'The VM can have no limits, because it has no cgroup v2 of its own; the event says why.',
    action:
      'Nothing, if the VM should have no limits; otherwise do what the event says (balloond(8), LIMITS).',
  },
  'pressure-unknown': {
    level: 'info',
    help: 'The kernel does not report memory pressure in the cgroup of a VM whose limits follow; the daemon looks at the cgroup by time alone.',
    action: 'EOPNOTSUPP, ENOENT: boot the host with `psi=1`. Other codes: nothing.',
  },
  'pin-unknown': {
    level: 'debug',
    help: 'The daemon may not look at the open files of the VMM, so it cannot tell whether a device pins guest memory. The daemon serves the VM as if no device did.',
    action: null,
  },
  'stats-received': { level: 'debug', help: 'The guest sent memory statistics.', action: null },
  'config-change-sent': {
    level: 'debug',
    help: 'The VMM was told that the configuration space changed.',
    action: null,
  },
  'page-poison-active': {
    level: 'warn',
    help: 'The guest poisons free pages with a non-zero value, so the daemon keeps the pages that the guest reports free.',
    action: 'Boot the guest without `page_poison=1` if the host should get reported pages back.',
  },
  'huge-pages-kept': {
    level: 'warn',
    help: 'The memory of the guest is on hugetlbfs, and the daemon keeps pages that the guest uses again without telling first: pages that it reports free, or that a driver without `VIRTIO_BALLOON_F_MUST_TELL_HOST` or a page cache balloon gives up. Discarded, such a page would have no claim to the pool, and the VMM would die of SIGBUS when the guest touches the page while the pool is empty. The event comes once for each driver and reason.',
    action:
      'Set `discard-untold-huge-pages = true` for the VM if the pool always has pages left; otherwise nothing.',
  },
  'huge-pages-short': {
    level: 'error',
    help: 'The guest takes memory back that is on hugetlbfs, and the pool has no pages for it: `guestWaits` says whether the daemon holds the answer to the guest back (true), or the guest was reset and may touch the memory at any time (false), whereupon its VMM dies of SIGBUS. The daemon asks the pool again and again; other rings and VMs go on.',
    action:
      'Stop the program that took the huge pages, or reserve more: the event has the figures of the pool, and its message names the file to write to.',
  },
  'huge-pages-enough': {
    level: 'info',
    help: 'After `huge-pages-short`: all of the memory that the guest took back has huge pages again.',
    action: null,
  },
  'pfn-outside-memory': {
    level: 'warn',
    help: 'The guest gave up pages that lie outside the memory that can go back to the host: in no region that the VMM shares, or in a file on disk. The daemon left these pages alone.',
    action:
      'Give all guest memory `memory-backend-ram,share=on`; if all of it has that, suspect the guest driver.',
  },
  'discard-failed': {
    level: 'error',
    help: 'The host kernel refused to discard pages; the daemon answered the guest, and the host kept the memory. The event comes once for each error code until all pages are discarded.',
    action:
      'EPERM: the VMM sealed its memory file, which must stay writable. ENOMEM, EBUSY: the daemon tries again by itself. Other codes: `balloonctl inhibit` and `allow` the VM, and the daemon tries again.',
  },
  'pages-refilled': {
    level: 'info',
    help: 'Pages of the balloon that were discarded are on the host again, because a program there touched or locked the memory of the VM (a dump, `mlock`), or because the kernel gave the guest a huge page that holds them, too. The daemon discards them again where the driver must tell before it uses them.',
    action:
      'Nothing, if `pages-absent` follows; otherwise the verdict of the VM says what to do. A driver that need not tell keeps these pages on the host.',
  },
  'pages-pinned': {
    level: 'warn',
    help: 'Pages of the balloon stayed on the host when they were discarded again: something pins the huge pages that they are part of (io_uring, RDMA, vmsplice). The daemon tries again every few seconds.',
    action: 'Look which program pins memory of the VM; once it ends, `pages-absent` follows within 30 s.',
  },
  'pages-absent': {
    level: 'info',
    help: 'All pages of the balloon that were discarded are absent from the host again.',
    action: null,
  },
  'pages-used': {
    level: 'error',
    help: 'The guest uses pages that are in its balloon, although its driver must take them back first. The daemon discards nothing a second time until the driver starts anew, so that no data is lost.',
    action:
      'Reboot the guest if a new kernel was started in it by kexec; otherwise report the guest kernel and its balloon driver.',
  },
  'priority-refused': {
    level: 'warn',
    help: 'The threads that discard may not have a lower priority than the event loop. They discard all the same; on a busy host guests wait longer for answers. The event comes once.',
    action:
      'Allow `setpriority` in the SystemCallFilter= of the unit, or in the seccomp profile of the container.',
  },
  'vm-throttled': {
    level: 'warn',
    help: 'The VM keeps the event loop so busy that it waits for its turns: VMs that need little time go first, and VMs that need much time share the rest. The event comes again only after the VM has been quiet.',
    action:
      'Look in the guest for the program or driver that kicks, reports or reads its configuration all the time; an inflate at full speed beside other VMs may cause this event for a moment.',
  },
  'memory-lost': {
    level: 'error',
    help: 'Part of the guest memory that the VMM shares is gone: its file was cut short, or the host has no page to give. The daemon stopped the balloon of this VM; other VMs go on.',
    action: 'Take the step that the event names.',
  },
  'driver-error': {
    level: 'warn',
    help: 'A virtqueue held something malformed; the daemon stopped that ring.',
    action: 'Take the step that the event names; report the guest kernel when the fault comes back.',
  },
  'frontend-error': {
    level: 'warn',
    help: 'The daemon refused a vhost-user request of the VMM, and nothing changed.',
    action: 'Compare the VMM device arguments with `balloonctl qemu-args`.',
  },
  'request-failed': {
    level: 'error',
    help: 'The daemon or the host has too few file descriptors or too little memory for a request of the VMM. The daemon refused the request, and nothing changed.',
    action:
      'Do what the event says: it names the limit of open files or of memory to raise. Then restart the VM.',
  },
  'log-too-short': {
    level: 'error',
    help: 'The dirty log that the VMM (QEMU or cloud-hypervisor) gave for a migration has no bit for a page that the daemon wrote: a VM that moves now misses that page on the other side. The event comes once for each log.',
    action:
      'Cancel the migration (`virsh domjobabort`, or `migrate_cancel` of QEMU), and report the VMM. The VM goes on here.',
  },
  'state-failed': {
    level: 'warn',
    help: 'The state of a device did not go to the VMM or come from it, for a snapshot or a migration by a VMM that asks for it, as crosvm does; the event says why. A VM starts without that state, and the size of its balloon is unknown until its guest says it.',
    action:
      'Save the VM again, or restore it from a state of the same device that this balloond, or an older one, saved.',
  },
  'private-memory': {
    level: 'error',
    help: 'The VMM shares a private copy of guest memory, so the daemon refused the device.',
    action: 'Add `share=on` to the memory backend and restart the VM.',
  },
  'too-few-queues': {
    level: 'error',
    help: 'The VMM device has fewer virtqueues than the offered features need; the driver cannot start.',
    action: 'Set the `num_vqs` that the event names on the VMM device and restart the VM.',
  },
  'vm-dropped': {
    level: 'error',
    help: 'The daemon closed the connection of a VM; the event says why. Other VMs are not affected.',
    action: 'Mend the reason that the event names, then restart the VM: its VMM cannot reconnect the device.',
  },
  'adopt-failed': {
    level: 'warn',
    help: 'The daemon cannot adopt the VM behind a QMP socket, or a domain of libvirt; the event says why. The daemon tries again, less and less often, until each minute. The event comes once for each reason.',
    action: 'Do the step that the event names.',
  },
  'qmp-waiting': {
    level: 'info',
    help: 'No QEMU greets at a QMP socket: QEMU serves one client at a time, so another program may have the socket. The daemon waits in line, and adopts the VM when its turn comes.',
    action: 'End the other client, or give QEMU a QMP socket for the daemon alone.',
  },
  'qmp-failed': {
    level: 'warn',
    help: 'QEMU or libvirt refused a command that the daemon gave, or does not answer, or the peer of a QMP socket sends what is no QMP; the event says which. The daemon closes the connection in the last case, and adopts the VM again. Other VMs are not affected.',
    action: 'Do the step that the event names.',
  },
  'libvirt-found': {
    level: 'info',
    help: 'libvirt answers, at first or again, and the daemon adopts its domains, as `[libvirt]` wants.',
    action: null,
  },
  'libvirt-failed': {
    level: 'warn',
    help: 'The configuration has `[libvirt]`, and libvirt cannot be asked for its domains; the event says why. The daemon asks again: every 2 s where libvirt answered before, and otherwise less and less often, until each minute. The event comes once for each reason. VMs go on.',
    action: 'Do the step that the event names.',
  },
  ...DAEMON_EVENTS,
} as const satisfies Record<string, EventKind>;

export type EventName = keyof typeof EVENTS;

export const EVENT_NAMES = Object.keys(EVENTS) as EventName[];
