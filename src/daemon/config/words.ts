/**
 * Each key of the configuration file in words: balloond.toml(5), the JSON Schema and the example file are made of them. A
 * key without words does not compile.
 */
import type { ConfigFile } from '../settings.js';

/** What one key means. Values are written as in TOML. */
export interface KeyWords {
  readonly text: string;
  /** What holds without the key. */
  readonly default?: string;
  /** A value to show where no default can be written. */
  readonly example?: string;
}

type Table<Key extends keyof ConfigFile> =
  NonNullable<ConfigFile[Key]> extends readonly (infer One)[] ? One : NonNullable<ConfigFile[Key]>;
type Words<Keys> = Readonly<Record<keyof Keys & string, KeyWords>>;
type Band = NonNullable<Table<'policy'>['band']>[number];

const FILE_WORDS: Words<Omit<ConfigFile, 'socket' | 'qmp' | 'libvirt' | 'vm' | 'policy'>> = {
  control: { text: 'Path of the control socket.', default: '"/run/balloond/control.sock"' },
  metrics: {
    text: 'Address on which metrics, and a page to look at, are served on TCP as well. Without the key they are on the control socket alone.',
    example: '"127.0.0.1:9797"',
  },
  'log-level': { text: 'The least level that is logged.', default: '"info"' },
  'log-format': {
    text: 'Format of the log. Without the key: `journal` where stderr is the journal, `pretty` on a terminal, else `json`.',
    example: '"json"',
  },
};

const DEVICE_WORDS = {
  features: {
    text: 'Features that guests are offered, by their names in the virtio specification. Without the key, all of the device but packed rings.',
    example:
      '["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ", "VIRTIO_BALLOON_F_DEFLATE_ON_OOM", "VIRTIO_BALLOON_F_FREE_PAGE_HINT", "VIRTIO_BALLOON_F_PAGE_POISON", "VIRTIO_BALLOON_F_REPORTING"]',
  },
  'stats-interval': {
    text: 'Seconds between two times that a guest is asked for statistics; with 0 it is never asked.',
    default: '10',
  },
  'discard-delay': {
    text: 'Seconds that a discard waits for more memory to be given up, where the guest was answered before.',
    default: '0.01',
  },
  'shared-cgroup': {
    text: 'Whether limits may be set on a cgroup that holds other processes as well.',
    default: 'false',
  },
  'discard-untold-huge-pages': {
    text: 'Whether pages of hugetlbfs are discarded that the guest uses again without telling first: pages that it reports free, pages of a page cache balloon, and pages of a driver without `VIRTIO_BALLOON_F_MUST_TELL_HOST`. If the pool has no page left at that time, the VMM dies of SIGBUS.',
    default: 'false',
  },
} as const satisfies Record<string, KeyWords>;

const SOCKET_WORDS: Words<Table<'socket'>> = {
  path: {
    text: 'Where the daemon listens for VMMs. With the path of the socket that `--fd` passes, the table says how the VMs of that socket are served.',
    example: '"/run/balloond/balloond.sock"',
  },
  device: { text: 'The device that each connection is.', default: '"balloon"' },
  name: {
    text: "Name of the VM that connects. Without the key: the VMM's `-name`, its machine scope, or `pid-N`.",
    example: '"web-1"',
  },
  ...DEVICE_WORDS,
};

const QMP_WORDS: Words<Table<'qmp'>> = {
  path: {
    text: 'Path of a QMP socket on which QEMU listens, or a pattern of such paths: `*` stands for any letters of one name, `?` for one. Sockets that appear later are found within seconds.',
    example: '"/run/balloond/qmp/*.qmp"',
  },
};

const LIBVIRT_WORDS: Words<Table<'libvirt'>> = {
  domains: {
    text: 'Patterns of the names of domains: `*` stands for any letters, `?` for one.',
    default: '["*"]',
  },
  bus: {
    text: 'Path of the socket of the message bus on which libvirt-dbus is.',
    default: '"/run/dbus/system_bus_socket"',
  },
};

const SHARE_WORDS = {
  min: { text: 'Memory that the VM keeps in any case: a size, or a share of its RAM.', example: '"50%"' },
  max: { text: 'Memory that the VM may have at most: a size, or a share of its RAM.', example: '"100%"' },
  weight: {
    text: 'The part of the memory that is shared out which the VM gets, in relation to other VMs of its band.',
    example: '1',
  },
  size: {
    text: 'With `on-demand` the balloon grows when the host or another VM needs memory. With `working-set` the traditional balloon follows the working set of the guest at all times, where `mode` is `auto`.',
    example: '"working-set"',
  },
} as const satisfies Record<string, KeyWords>;

const VM_WORDS: Words<Table<'vm'>> = {
  match: {
    text: 'Pattern for names of VMs: `*` stands for any letters, `?` for one. The last table that matches counts.',
    example: '"db-*"',
  },
  ...DEVICE_WORDS,
  ...SHARE_WORDS,
  target: {
    text: 'Memory that the guest keeps, whatever the policy would do: a size, or a share of its RAM. `balloonctl set` goes before it.',
    example: '"1G"',
  },
  policy: {
    text: 'With `manual` the policy leaves the VM alone; with `auto`, as without the key, it governs the VM. A VM with a `target` is left alone in any case.',
    example: '"manual"',
  },
  inhibit: {
    text: 'Reason to discard nothing for the VM. Without the key, memory that the guest gives up is discarded.',
    example: '"it migrates by postcopy"',
  },
};

const POLICY_WORDS: Words<Omit<Table<'policy'>, 'band'>> = {
  mode: {
    text: 'With `observe` the policy says which action it would take, with `auto` it takes the action, with `off` it does not look.',
    default: '"observe"',
  },
  memory: {
    text: 'Memory of the host that VMs may have in all: a size, or a share of the memory of the host.',
    default: '"100%"',
  },
  reserve: {
    text: 'Part of that memory that stays available, at most 90 %: a size, or a share.',
    default: '"10%"',
  },
  'share-pools': {
    text: 'Whether VMs in a pool of huge pages give memory to each other. A guest that is reset then needs free pages for its balloon, or its VMM dies.',
    default: 'false',
  },
  interval: {
    text: 'Seconds between two looks at the host and its VMs. Memory pressure wakes the policy as well.',
    default: '5',
  },
  'idle-tax': { text: "The most of a VM's idle memory that may be taken.", default: '0.75' },
  ramp: { text: 'Share of its RAM by which a balloon is asked to grow, each second.', default: '"1%"' },
  'urgent-ramp': {
    text: 'The same while the host, or a VM of a higher band, is in need.',
    default: '"20%"',
  },
  'will-grace': {
    text: 'Seconds that a guest has for half of what it owes, before it is forced.',
    default: '30',
  },
  'force-grace': { text: 'Seconds that each step of force lasts.', default: '30' },
  hold: { text: 'Seconds that a VM is left alone after it was moved in the other direction.', default: '60' },
  record: {
    text: 'File to which the policy writes its readings, for `balloonctl policy simulate --trace`. Without the key nothing is recorded.',
    example: '"/var/lib/balloond/trace.ndjson"',
  },
  'record-max': {
    text: 'Size of the recording on disk. At half of it the file is renamed to end with `.1`, in place of the one before, and a new file begins.',
    default: '"1G"',
  },
  'default-band': {
    text: 'Band of VMs that no pattern matches. Without the key, the last band.',
    example: '"bronze"',
  },
};

const BAND_WORDS: Words<Band> = {
  name: { text: 'Name of the band.', example: '"bronze"' },
  match: { text: 'Patterns of the names of its VMs. No name may be in two bands.', example: '["batch-*"]' },
  kill: { text: 'Whether a VM that yields to nothing else may be killed.', default: 'false' },
  min: { ...SHARE_WORDS.min, default: '"25%"' },
  max: { ...SHARE_WORDS.max, default: '"100%"' },
  weight: { ...SHARE_WORDS.weight, default: '1' },
  size: { ...SHARE_WORDS.size, default: '"on-demand"' },
};

/** Tables of the file in the order of the example, each with its header. */
interface TableWords {
  /** The keys that lead to it in the schema; none for the top of the file. */
  readonly path: readonly string[];
  readonly header: string | null;
  readonly text: string;
  readonly keys: Readonly<Record<string, KeyWords>>;
}

export const TABLE_WORDS: readonly TableWords[] = [
  { path: [], header: null, text: 'Settings of the daemon.', keys: FILE_WORDS },
  {
    path: ['socket'],
    header: '[[socket]]',
    text: 'Any number of sockets on which the daemon listens for VMMs. They are served beside the socket that `--fd` passes; `--socket-path` and `--cache-socket-path` replace them all.',
    keys: SOCKET_WORDS,
  },
  {
    path: ['qmp'],
    header: '[[qmp]]',
    text: "Any number of QMP sockets. The daemon adopts the VM behind each: it moves QEMU's own balloon. `balloonctl adopt` does the same for one socket.",
    keys: QMP_WORDS,
  },
  {
    path: ['libvirt'],
    header: '[libvirt]',
    text: "Domains that libvirt runs. The daemon adopts them through libvirt-dbus: it moves QEMU's own balloon. The header alone, without a key, adopts all domains.",
    keys: LIBVIRT_WORDS,
  },
  {
    path: ['vm'],
    header: '[[vm]]',
    text: 'Settings of VMs with some names, whichever socket they come to. They win over those of the socket and the band.',
    keys: VM_WORDS,
  },
  {
    path: ['policy'],
    header: '[policy]',
    text: 'Which VMs give memory up when the host runs short, and which get it.',
    keys: POLICY_WORDS,
  },
  {
    path: ['policy', 'band'],
    header: '[[policy.band]]',
    text: 'Bands, highest first. Without any there are gold, silver and bronze, with 50 %, 25 % and 10 % as `min` and 4, 2 and 1 as `weight`.',
    keys: BAND_WORDS,
  },
];
