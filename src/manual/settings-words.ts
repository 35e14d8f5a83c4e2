/** What each key of the configuration file means, for balloond.toml(5). A key without words does not compile. */
import type { ConfigFile } from '../daemon/settings.js';

type Table<Key extends keyof ConfigFile> =
  NonNullable<ConfigFile[Key]> extends readonly (infer One)[] ? One : NonNullable<ConfigFile[Key]>;
type Words<Keys> = Readonly<Record<keyof Keys & string, string>>;
type Band = NonNullable<Table<'policy'>['band']>[number];

export const FILE_WORDS: Words<Omit<ConfigFile, 'socket' | 'vm' | 'policy'>> = {
  control: 'Path of the control socket; `/run/balloond/control.sock` by default.',
  metrics: 'Address to serve metrics, and a page to look at, on TCP as well; not by default.',
  'log-level': 'The least level that is logged; `info` by default.',
  'log-format': '`journal` where stderr is the journal, `pretty` on a terminal, else `json`.',
};

export const DEVICE_WORDS = {
  features: 'Features that guests are offered, by their names in the virtio specification; by default all.',
  'stats-interval':
    'Seconds between two times that a guest is asked for statistics; 0: never; 10 by default.',
  'discard-delay': 'Seconds that a discard behind the ack waits for more to be given up; 0.01 by default.',
  'shared-cgroup': 'Whether limits may be set on a cgroup that holds others as well; not by default.',
};

export const SOCKET_WORDS: Words<Table<'socket'>> = {
  path: 'Where to listen for VMMs.',
  device: 'What connections are served; `balloon` by default.',
  name: "Name of the VM that connects; else that of the VMM's `-name`, of its machine scope, or `pid-N`.",
  ...DEVICE_WORDS,
};

const SHARE_WORDS = {
  min: 'What it keeps in any case: a size, or a share of its RAM such as `25%`.',
  max: 'What it may have at most: a size, or a share of its RAM.',
  weight: 'Its part of what is shared out, beside others of its band.',
};

export const VM_WORDS: Words<Table<'vm'>> = {
  match: 'Pattern for names: `*` stands for any letters, `?` for one. The last table that matches counts.',
  ...DEVICE_WORDS,
  ...SHARE_WORDS,
};

export const POLICY_WORDS: Words<Omit<Table<'policy'>, 'band'>> = {
  mode: '`observe` (default) says what it would do, `auto` does it.',
  memory: 'What VMs may have of the host in all: a size, or a share of its memory; all of it by default.',
  reserve: 'What is to stay available on the host: a size, or a share of its memory; `10%` by default.',
  interval: 'Seconds between two looks; 5 by default. Memory pressure wakes it as well.',
  'idle-tax': "The most of a VM's idle memory that may be taken; 0.75 by default.",
  ramp: 'Share of RAM a second by which a balloon is asked to grow; `1%` by default.',
  'urgent-ramp': 'The same when the host, or a VM of a higher band, is in need; `20%` by default.',
  'will-grace': 'Seconds that a guest has for half of what it owes, before it is forced; 30 by default.',
  'force-grace': 'Seconds that each step of force lasts; 30 by default.',
  hold: 'Seconds that a VM is left alone after it was moved in the other direction; 60 by default.',
  record: 'File that what the policy sees is written to, for `balloonctl policy simulate --trace`.',
  'default-band': 'Band of VMs that no pattern matches; the last by default.',
};

export const BAND_WORDS: Words<Band> = {
  name: 'Name of the band.',
  match: 'Patterns of the names of its VMs. No name may be of two bands.',
  kill: 'Whether a VM that yields to nothing else may be killed; not by default.',
  ...SHARE_WORDS,
};
