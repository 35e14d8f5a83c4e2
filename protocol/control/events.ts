/**
 * The catalog of events: every line the daemon logs carries one of these names in `event`, and `vm` where a
 * VM is meant. Names are stable: scripts match on them. docs/events.md shows the same table.
 */
export type { DaemonEvent } from './schema.js';

export type EventLevel = 'debug' | 'info' | 'warn' | 'error';

interface EventKind {
  readonly level: EventLevel;
  /** What happened. */
  readonly help: string;
  /** What the operator should do; null when nothing. */
  readonly action: string | null;
}

export const EVENTS = {
  'daemon-started': { level: 'info', help: 'The daemon started.', action: null },
  'daemon-stopping': { level: 'info', help: 'The daemon is shutting down.', action: null },
  listening: { level: 'info', help: 'A socket is open for VMMs or for control clients.', action: null },
  'vm-connected': { level: 'info', help: 'A VMM connected its balloon device.', action: null },
  'vm-resumed': {
    level: 'info',
    help: 'A VM that the daemon before this one served is served again, from where that ended.',
    action: null,
  },
  'resume-failed': {
    level: 'error',
    help: 'A VM that the daemon before this one served cannot be gone on with. What was handed over is kept, untouched.',
    action:
      'Do not reboot the VM. Start the version of the daemon that served it: it goes on with the VM, whatever was started in between. If it was that one, report this line, and restart the VM when it suits.',
  },
  'hand-over-failed': {
    level: 'error',
    help: 'Something cannot be handed over to the next daemon: VMs that connect now lose their balloon when this one ends.',
    action:
      'Raise FileDescriptorStoreMax= in the unit (20 for each VM), or do not restart the daemon under them.',
  },
  'daemon-ended': {
    level: 'warn',
    help: 'The daemon ended and is started again by its keeper (--supervise), which holds its VMs meanwhile.',
    action: 'Look at what it said last; report a crash.',
  },
  'daemon-stuck': {
    level: 'error',
    help: 'The daemon gave its keeper no sign of life and is killed, to be started again.',
    action: 'Report it with the lines before.',
  },
  'features-negotiated': { level: 'info', help: 'The guest driver acknowledged features.', action: null },
  'memory-mapped': {
    level: 'info',
    help: 'The table of shared guest memory changed: its regions and bytes.',
    action: null,
  },
  'vm-ready': { level: 'info', help: 'The guest driver started; its rings run.', action: null },
  'vm-stopped': {
    level: 'info',
    help: 'The guest driver stopped or reset the device; the target is kept for its return.',
    action: null,
  },
  'vm-disconnected': { level: 'info', help: 'The VMM closed its connection.', action: null },
  'target-changed': {
    level: 'info',
    help: 'The balloon target changed: by whom, from and to how many bytes.',
    action: null,
  },
  'target-clamped': {
    level: 'warn',
    help: 'A target beyond what the VM can give was cut down to what it can.',
    action: 'Ask for no more than the `ramBytes` that `balloonctl show` reports.',
  },
  'target-reached': { level: 'info', help: 'The balloon is as large as its target.', action: null },
  inhibited: {
    level: 'warn',
    help: 'Discarding stopped for this VM: its balloon moves, but the host gets no memory back. A page cache balloon is asked to give all up (LOCK), and grows again afterwards.',
    action: 'Remove the reason it gives; after an inhibit by hand, run `balloonctl allow`.',
  },
  allowed: {
    level: 'info',
    help: 'Discarding resumed; pages given up meanwhile are discarded now.',
    action: null,
  },
  'policy-changed': {
    level: 'info',
    help: 'The policy was paused or resumed, for one VM or all.',
    action: null,
  },
  'policy-took': {
    level: 'info',
    help: 'The policy took memory from this VM: how many bytes, for whom and why.',
    action: null,
  },
  'policy-gave': {
    level: 'info',
    help: 'The policy gave memory to this VM: how many bytes, from whom and why.',
    action: null,
  },
  'policy-cache-limit': {
    level: 'info',
    help: 'The policy set how much the page cache balloon of this VM may hold, from and to how many bytes: all but its floor, since its guest takes back by itself.',
    action: null,
  },
  'policy-forced': {
    level: 'warn',
    help: 'A VM did not yield in its grace time, so that its cgroup is held to less (memory.high in steps, then memory.max), or is killed where its band allows that.',
    action: 'Look at the verdict of the VM; `balloonctl policy pause VM` ends the force.',
  },
  'policy-released': {
    level: 'info',
    help: 'Force was undone by one step, and why.',
    action: null,
  },
  'policy-advice': {
    level: 'info',
    help: 'The policy only observes, and says what it would do. Said when that changes.',
    action: null,
  },
  'policy-degraded': {
    level: 'warn',
    help: 'The policy works with less than it should, or with less than it was told: it says what is missing and what it does instead.',
    action: 'Mend what it names.',
  },
  'limit-set': {
    level: 'info',
    help: "A limit of the VM's cgroup changed: which, from and to how many bytes (null: none), and why; while it follows, what the guest may use as well.",
    action: null,
  },
  'limit-failed': {
    level: 'error',
    help: "The limits of a VM's cgroup cannot be written or are gone with it; the VM is served as before. Said once for each reason.",
    action: 'Do what it says, then set the limits again with `balloonctl limit`.',
  },
  'cgroup-unknown': {
    level: 'info',
    help: 'The VM can have no limits, and why: it has no cgroup v2 of its own.',
    action: 'Nothing, if it is to have none; else do what it says (/usr/share/doc/balloond/limits.md).',
  },
  'pressure-unknown': {
    level: 'info',
    help: 'The kernel does not tell of the pressure in the cgroup of a VM whose limits follow: they are looked at by time alone.',
    action: 'Boot the host with `psi=1`.',
  },
  'pin-unknown': {
    level: 'debug',
    help: 'Whether a device pins guest memory cannot be told: the files of the VMM may not be looked at. It is served as if there were none.',
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
    help: 'The guest poisons free pages with a non-zero value, so pages it reports free are kept.',
    action: 'Boot the guest without `page_poison=1` if the host should get reported pages back.',
  },
  'pfn-outside-memory': {
    level: 'warn',
    help: 'The guest gave up pages that lie outside the memory the VMM shares; they were left alone.',
    action: 'Share all guest memory through backends with `share=on`; else suspect the guest driver.',
  },
  'discard-failed': {
    level: 'error',
    help: 'The host kernel refused to discard pages; the guest was answered, the host kept the memory. Said once for each error code until all is discarded.',
    action:
      'EPERM: the VMM sealed its memory file, which must stay writable. ENOMEM, EBUSY: tried again by itself. Others: `balloonctl inhibit` and `allow` the VM to try again.',
  },
  'vm-throttled': {
    level: 'warn',
    help: 'The VM keeps the event loop so busy that it waits for its turns: VMs that need little go first, and those that need much share what they may have. Said again only after it has been quiet.',
    action:
      'Look for what kicks, reports or reads its configuration all the time in the guest; an inflate at full speed beside others may do it for a moment.',
  },
  'memory-lost': {
    level: 'error',
    help: 'Part of the guest memory that the VMM shares is gone: its file was cut short, or has no page to give. The balloon of this VM is stopped, others go on.',
    action:
      'Keep everything from truncating the memory file of the VM, reserve enough huge pages where it has some, and restart the VM.',
  },
  'driver-error': {
    level: 'warn',
    help: 'A virtqueue held something malformed; that ring was stopped.',
    action: 'Reload the guest driver or reboot the guest; if it comes back, report the guest kernel.',
  },
  'frontend-error': {
    level: 'warn',
    help: 'A vhost-user request of the VMM was refused; nothing changed.',
    action: 'Compare the VMM device arguments with `balloonctl qemu-args`.',
  },
  'private-memory': {
    level: 'error',
    help: 'The VMM shares a private copy of guest memory, so the device was refused.',
    action: 'Add `share=on` to the memory backend and restart the VM.',
  },
  'too-few-queues': {
    level: 'error',
    help: 'The VMM device has fewer virtqueues than the offered features need; the driver cannot start.',
    action: 'Set the `num_vqs` it names on the VMM device and restart the VM.',
  },
  'vm-dropped': {
    level: 'error',
    help: 'The daemon closed the connection of a VM, and says why; other VMs are not affected.',
    action: 'Fix the reason it gives, then restart the VM: its VMM cannot reconnect the device.',
  },
  'config-reloaded': {
    level: 'info',
    help: 'The configuration file was read again; `changes` says what is different, and when that takes effect.',
    action: null,
  },
  'config-refused': {
    level: 'error',
    help: 'The configuration file was read again and has a mistake; all stays as it was.',
    action:
      'Mend the line it names, try it with `balloond --check-config --config FILE`, and `balloonctl reload`.',
  },
  'journal-failed': {
    level: 'warn',
    help: 'The journal takes no entries, so the log goes to stderr as JSON. Said once.',
    action: 'Start systemd-journald, or give `--log-format json`.',
  },
  'metrics-unavailable': {
    level: 'error',
    help: 'Metrics cannot be served on the TCP address asked for. VMs are served all the same, and the control socket has the metrics.',
    action:
      'Choose an address of this host and a port that is free (`--metrics`), or let the network into the packaged unit (/usr/share/doc/balloond/installing.md, "Metrics on TCP"), and restart the daemon.',
  },
  'control-request-refused': {
    level: 'debug',
    help: 'A request on the control socket was answered with a 4xx status.',
    action: null,
  },
  'control-request-failed': {
    level: 'error',
    help: 'A request on the control socket met a fault in the daemon and was answered with a 5xx status.',
    action: 'Report it with this log line.',
  },
} as const satisfies Record<string, EventKind>;

export type EventName = keyof typeof EVENTS;

export const EVENT_NAMES = Object.keys(EVENTS) as EventName[];
