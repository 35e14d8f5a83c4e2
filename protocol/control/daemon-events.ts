/** Events that are about the daemon itself, its log and its configuration: the last part of the catalog (events.ts). */
import type { EventKind } from './event-kind.js';

export const DAEMON_EVENTS = {
  'log-level-changed': {
    level: 'info',
    help: 'An operator set the log level, until the daemon restarts or reads its configuration again.',
    action: null,
  },
  'stats-interval-changed': {
    level: 'info',
    help: 'The daemon now asks the guest for statistics more or less often, because an operator or a changed configuration said so.',
    action: null,
  },
  'config-reloaded': {
    level: 'info',
    help: 'The daemon read the configuration file again; `changes` lists each change and when the change takes effect.',
    action: null,
  },
  'config-refused': {
    level: 'error',
    help: 'The daemon read the configuration file again and found a mistake; all settings stay as they were.',
    action:
      'Mend the line that the event names, try the file with `balloond --check-config --config FILE`, and run `balloonctl reload`.',
  },
  'config-set-aside': {
    level: 'error',
    help: 'This daemon found a mistake in the configuration while VMs of the daemon before it waited. It serves them with the settings of that daemon.',
    action:
      'Mend the line that the event names, try the file with `balloond --check-config`, and run `balloonctl reload`.',
  },
  'listen-failed': {
    level: 'error',
    help: 'This daemon cannot listen on a socket. It serves the VMs that waited for it all the same, and tries again until it can listen.',
    action: 'Do the step that the event names; the daemon needs no restart.',
  },
  'journal-failed': {
    level: 'warn',
    help: 'The journal takes no entries, so the log goes to stderr as JSON. The event comes once until the journal takes entries again.',
    action: 'Start systemd-journald, or give `--log-format json`.',
  },
  'journal-works': {
    level: 'info',
    help: 'The journal takes entries again, after `lines` lines went to stderr.',
    action: null,
  },
  'log-dropped': {
    level: 'warn',
    help: 'The daemon, or its keeper, dropped lines of its log: stderr took no lines for so long that the queue (256 KiB) was full. The daemon served its VMs all the time.',
    action:
      'Free space on the disk of the log, or mend the program that reads the log; `balloonctl events` still has the last 1,000 events.',
  },
  'daemon-failed': {
    level: 'error',
    help: 'A fault in the code of the daemon, or of its keeper, ends that process; `fault` says where the fault is. The service manager or the keeper starts the daemon again, which goes on with its VMs.',
    action: 'Report this line.',
  },
  'runtime-warning': {
    level: 'warn',
    help: 'Node.js, which runs the daemon, gave a warning.',
    action: 'Report this line.',
  },
  'metrics-unavailable': {
    level: 'error',
    help: 'The daemon cannot serve metrics on the TCP address that was asked for. The daemon serves VMs all the same, and the control socket has the metrics.',
    action:
      'Choose an address of this host and a port that is free (`--metrics`), or let the network into the packaged unit (balloond(8), METRICS ON TCP), and restart the daemon.',
  },
  'control-busy': {
    level: 'warn',
    help: 'All connections of the control socket or of the metrics address are in use, or all connections that may be streams; the daemon turns clients away with status 503. The event comes once a minute at most.',
    action:
      'End clients that hold connections without need: `balloonctl events --follow`, `balloonctl top`, open pages. `ss -xp` names the clients of the control socket, `ss -tp` the clients of the metrics address.',
  },
  'signal-ignored': {
    level: 'info',
    help: 'The daemon or its keeper got a signal that has no meaning there, and ignored the signal.',
    action: null,
  },
  'inspector-open': {
    level: 'warn',
    help: "Node's inspector is open: every client that reaches its address controls the daemon and all its VMs.",
    action: 'Unless you debug the daemon, start it without `--inspect` in NODE_OPTIONS.',
  },
  'control-request-refused': {
    level: 'debug',
    help: 'The daemon answered a request on the control socket or the metrics address with a 4xx status.',
    action: null,
  },
  'control-request-failed': {
    level: 'error',
    help: 'A request on the control socket met a fault in the daemon, which answered with a 5xx status.',
    action: 'Report this line.',
  },
} as const satisfies Record<string, EventKind>;
