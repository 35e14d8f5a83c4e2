/** The commands of balloonctl: their names, their words, and what carries each of them out, which loads on use. */
import { byName, LIMITS } from '../protocol/control/limits.js';
import { LOG_LEVELS } from '../protocol/control/log-levels.js';
import { formatSize } from '../protocol/control/size.js';
import {
  CONTROL_SOCKET,
  EVENT_LEVELS,
  LIBVIRT_ACTIONS,
  LIST_FORMATS,
  SHELLS,
  SORT_KEYS,
  VM_KINDS,
  VM_STATES,
  VMMS,
  WAIT_STATES,
} from '../src/control/cli/choices.js';
import { UsageError } from '../src/control/cli/exit.js';
import { limitsOf, oneOf, seconds, size, targetOf, text } from '../src/control/cli/option-values.js';
import { SELECTION_OPTIONS, selectionOf } from '../src/control/cli/selection.js';
import { stderr } from '../src/os/print.js';
import { version } from '../src/version.js';
import type { Command } from './command.js';
import { POLICY_COMMAND } from './commands-policy.js';

const VMM_SOCKET = '/run/balloond/balloond.sock';
const CACHE_SOCKET = '/run/balloond/cache-balloon.sock';
const WAIT_SECONDS = 60;
const GUEST_BYTES = 2 * 1024 ** 3;
/** Of seconds between statistics that the daemon takes, besides 0. */
const STATS_SECONDS = [0.1, 86_400] as const;

export const GLOBALS = {
  control: { value: 'path', summary: `control socket (${CONTROL_SOCKET})` },
  json: { summary: 'print one JSON document (events: one a line)' },
  version: { summary: 'print the version of balloonctl' },
};

export const COMMANDS: readonly Command[] = [
  {
    name: 'list',
    group: 'see',
    operands: ['vm?'],
    summary: 'one line a VM',
    details:
      'Prints one line a VM: its state, its RAM, the memory that the guest has of it, its balloon and target, and the memory that is available in the guest; then prints the verdicts. VM is a name or a pattern such as `web-*`. `-o wide` adds columns, `-o name` prints names alone, `-o json` is `--json`.',
    options: {
      band: { value: 'band', summary: 'only VMs of this band' },
      state: { value: 'state', choices: VM_STATES, summary: 'only VMs in this state' },
      kind: { value: 'kind', choices: VM_KINDS, summary: 'only VMs of this kind' },
      output: { short: 'o', value: 'format', choices: LIST_FORMATS, summary: 'default table' },
      'no-headers': { summary: 'rows alone, without the head and without notes' },
    },
    run: async ({ client, output, vm, values }) => {
      const [{ list }, connected] = await Promise.all([import('../src/control/cli/list.js'), client()]);
      await list(connected, output, version(), {
        selection: { pattern: vm === '' ? null : vm, band: text(values, 'band') ?? null },
        state: oneOf(VM_STATES, text(values, 'state')) ?? null,
        kind: oneOf(VM_KINDS, text(values, 'kind')) ?? null,
        format: oneOf(LIST_FORMATS, text(values, 'output')) ?? 'table',
        headers: values['no-headers'] !== true,
      });
    },
  },
  {
    name: 'show',
    group: 'see',
    operands: ['vm'],
    summary: 'everything known of one VM',
    options: {},
    run: async ({ client, output, vm }) => {
      const [{ show }, connected] = await Promise.all([import('../src/control/cli/show.js'), client()]);
      await show(connected, output, vm, version());
    },
  },
  {
    name: 'stats',
    group: 'see',
    operands: ['vm'],
    summary: 'guest statistics, by their virtio names',
    details:
      'Prints the statistics of the guest by their virtio names. Without `--refresh` they are as old as the first line says. `--interval` sets how often the guest is asked for them, until the daemon restarts or reads its configuration again.',
    options: {
      refresh: { summary: 'ask the guest for fresh ones' },
      interval: { value: 'seconds', summary: 'ask the guest so often; 0: never' },
    },
    run: async ({ client, output, vm, values }) => {
      const interval = seconds(values, 'interval');
      const [least, most] = STATS_SECONDS;
      if (interval !== undefined && interval !== 0 && (interval < least || interval > most)) {
        throw new UsageError(`--interval: write 0, or seconds from ${least} to ${most}`);
      }
      const refresh = values['refresh'] === true;
      if (interval !== undefined && refresh) throw new UsageError('--interval cannot be used with --refresh');
      const [cli, connected] = await Promise.all([import('../src/control/cli/show.js'), client()]);
      if (interval !== undefined) return cli.setStatsInterval(connected, output, vm, interval);
      await cli.stats(connected, output, vm, refresh);
    },
  },
  {
    name: 'top',
    group: 'see',
    waits: false,
    operands: [],
    summary: 'all VMs, live',
    details:
      'Shows all VMs, every second anew, with what their guests had lately. Keys: n, m, b and a sort by name, memory, balloon and what is available; arrows (or j and k), PgUp, PgDn, Home and End select a VM, Enter shows all that is known of it, Esc or q goes back; / shows those whose names contain what is typed (Enter keeps it, Esc clears it); q quits.',
    options: {
      sort: { value: 'key', choices: SORT_KEYS, summary: 'the most first; default name' },
      once: { summary: 'print it once, as where there is no terminal' },
    },
    run: async ({ client, output, values }) => {
      const key = oneOf(SORT_KEYS, text(values, 'sort')) ?? 'name';
      const [{ top }, connected] = await Promise.all([import('../src/control/cli/top.js'), client()]);
      await top(connected, output, key, values['once'] === true);
    },
  },
  {
    name: 'events',
    group: 'see',
    operands: [],
    summary: 'what happened and why, newest last',
    details:
      'Prints the events that the daemon remembers, which say what happened and why, newest last. With `--follow` the command goes on with new events, also when the daemon is restarted meanwhile: a line on stderr says so, no event is printed twice, and no event is left out that the daemon remembers.',
    options: {
      follow: { summary: 'go on with what happens next' },
      vm: { value: 'name', summary: 'only events of this VM' },
      since: {
        value: 'when',
        summary: 'only events since then: 30m, 2h, 1d, 2026-11-27T10:00 or the id of an event',
      },
      level: { value: 'level', choices: EVENT_LEVELS, summary: 'only events of this level or a higher one' },
    },
    run: async ({ client, output, values }) => {
      const [{ events, sinceOf }, connected] = await Promise.all([
        import('../src/control/cli/events.js'),
        client(),
      ]);
      const [vm, since, level] = ['vm', 'since', 'level'].map((name) => text(values, name));
      const wanted = {
        follow: values['follow'] === true,
        since:
          since === undefined ? '0' : sinceOf(since, new Date(performance.timeOrigin + performance.now())),
        ...(vm !== undefined && { vm }),
        ...(level !== undefined && { level }),
      };
      await events(connected, output, wanted, (line) => stderr.write(`balloonctl: ${line}\n`));
    },
  },
  {
    name: 'orders',
    group: 'see',
    operands: ['vm?'],
    summary: 'the orders that hold, also for VMs that are away',
    details:
      'Prints the orders that hold, by VM, also for VMs that are not connected, each with its time and the command that takes it back. With `--take-back` the command takes all orders of an operator for VM back, whether VM is connected or not.',
    options: { 'take-back': { summary: 'take all orders of an operator for VM back' } },
    run: async ({ client, output, vm, values }) => {
      const takesBack = values['take-back'] === true;
      if (takesBack && vm === '') throw new UsageError('orders --take-back needs VM');
      const [cli, connected] = await Promise.all([import('../src/control/cli/orders.js'), client()]);
      if (takesBack) await cli.takeBackOrders(connected, output, vm);
      else await cli.orders(connected, output, vm === '' ? null : vm);
    },
  },
  {
    name: 'wait',
    group: 'see',
    operands: ['vm?'],
    summary: 'wait until VMs run, reach targets or are gone',
    details:
      'Waits until all selected VMs run (`--for running`; there has to be one), until their guests have reached their targets (`--for target`), or until there is none of them (`--for gone`). VM is a name, also of a VM that has yet to connect, or a pattern such as `web-*`.',
    options: {
      for: { value: 'state', choices: WAIT_STATES, summary: 'default running' },
      timeout: { value: 'seconds', summary: `give up after this long (default ${WAIT_SECONDS})` },
      ...SELECTION_OPTIONS,
    },
    run: async ({ client, output, vm, values }) => {
      const selection = selectionOf('wait', vm, values);
      const timeout = seconds(values, 'timeout') ?? WAIT_SECONDS;
      const state = oneOf(WAIT_STATES, text(values, 'for')) ?? 'running';
      const [{ wait }, connected] = await Promise.all([import('../src/control/cli/wait.js'), client()]);
      await wait(connected, output, selection, state, timeout);
    },
  },
  {
    name: 'set',
    group: 'order',
    operands: ['vm?'],
    summary: 'set the balloon target',
    details:
      'Sets the memory that the guest keeps (`--memory`) or gives up (`--balloon`). The command returns at once; with `--wait` it returns when the guest has reached the target. The target stands in either case. `--balloon 0` gives everything back. A size is bytes with a unit (`512M`), bytes more or less than the target that holds (`--memory +512M`, `--memory=-512M`), or a part of the memory of the guest (`50%`). VM is a name or a pattern such as `web-*`; a VM that refuses keeps no other VM from its target.',
    options: {
      memory: { value: 'size', summary: 'memory that the guest keeps' },
      balloon: { value: 'size', summary: 'memory that the guest gives up' },
      'cache-limit': { value: 'size', summary: 'the most memory that its page cache balloon may hold' },
      force: { summary: 'also where the guest would keep less than any guest is known to live in' },
      wait: { summary: 'wait until the guest has reached the target' },
      timeout: {
        value: 'seconds',
        summary: `with --wait: give up after this long (default ${WAIT_SECONDS})`,
      },
      'dry-run': { summary: 'say what the target would be, and set none' },
      ...SELECTION_OPTIONS,
    },
    run: async ({ client, output, vm, values }) => {
      const selection = selectionOf('set', vm, values);
      const target = targetOf(values);
      const dryRun = values['dry-run'] === true;
      const timeout = seconds(values, 'timeout');
      const wait = values['wait'] === true;
      if (timeout !== undefined && !wait) throw new UsageError('--timeout needs --wait');
      if (wait && target.of === 'cacheLimitBytes') {
        throw new UsageError('--wait cannot be used with --cache-limit: the guest decides how much it holds');
      }
      if (wait && dryRun) throw new UsageError('--wait cannot be used with --dry-run: nothing is set');
      const [{ setTarget }, connected] = await Promise.all([
        import('../src/control/cli/set-target.js'),
        client(),
      ]);
      const waitSeconds = wait ? (timeout ?? WAIT_SECONDS) : null;
      await setTarget(connected, output, selection, target, { waitSeconds, dryRun });
    },
  },
  {
    name: 'limit',
    group: 'order',
    operands: ['vm?'],
    summary: "limit the VM's cgroup on the host",
    details:
      'Limits the cgroup of the VM on the host. `follow` keeps a limit above the memory that the guest may use, `max` sets no limit, and `restore` sets the limit that the daemon found.',
    options: {
      ...byName((name) => ({
        value: 'size',
        summary: `${LIMITS[name].file}: ${LIMITS[name].effect} (SIZE|max|follow|restore)`,
      })),
      ...SELECTION_OPTIONS,
    },
    run: async ({ client, output, vm, values }) => {
      const selection = selectionOf('limit', vm, values);
      const limits = limitsOf(values);
      const [{ limit }, connected] = await Promise.all([import('../src/control/cli/limit.js'), client()]);
      await limit(connected, output, selection, limits);
    },
  },
  {
    name: 'inhibit',
    group: 'order',
    operands: ['vm?'],
    summary: 'stop discarding for VMs',
    details:
      'Lets the balloon move but discards nothing, for as long as a program on the host must be able to rely on every page of the VM.',
    options: {
      reason: { value: 'text', summary: 'the reason, for the next operator who looks' },
      ...SELECTION_OPTIONS,
    },
    run: async ({ client, output, vm, values }) => {
      const selection = selectionOf('inhibit', vm, values);
      const [{ inhibit }, connected] = await Promise.all([import('../src/control/cli/inhibit.js'), client()]);
      await inhibit(connected, output, selection, text(values, 'reason'));
    },
  },
  {
    name: 'allow',
    group: 'order',
    beside: 'inhibit',
    operands: ['vm?'],
    summary: 'resume discarding',
    details: 'Ends the inhibition, and discards the pages that the guest gave up meanwhile.',
    options: SELECTION_OPTIONS,
    run: async ({ client, output, vm, values }) => {
      const selection = selectionOf('allow', vm, values);
      const [{ allow }, connected] = await Promise.all([import('../src/control/cli/inhibit.js'), client()]);
      await allow(connected, output, selection);
    },
  },
  {
    name: 'evacuate',
    group: 'order',
    operands: ['vm'],
    summary: 'empty the balloon before the VM moves elsewhere',
    details:
      'Sets the balloon target to 0, waits until the guest has all of its memory, and prints how the device is unplugged and what gives the VM its balloon again on the other host. The order for the target of 0 stands until it is taken back.',
    options: {
      timeout: { value: 'seconds', summary: `give up after this long (default ${WAIT_SECONDS})` },
    },
    run: async ({ client, output, vm, values }) => {
      const timeout = seconds(values, 'timeout') ?? WAIT_SECONDS;
      const [{ evacuate }, connected] = await Promise.all([
        import('../src/control/cli/evacuate.js'),
        client(),
      ]);
      await evacuate(connected, output, vm, timeout);
    },
  },
  {
    name: 'adopt',
    group: 'order',
    operands: ['socket?'],
    summary: "adopt QEMU's own balloon, by the VM's QMP socket",
    details:
      "Adopts the VM whose QEMU listens on the QMP socket: from then on the daemon moves QEMU's own balloon. The VM needs no change and no restart. The word holds over restarts of the daemon and of the VM. With `--release` the command takes the word back: the balloon stays as it is, and QEMU asks for statistics as often as it did before. In place of SOCKET, `libvirt:NAME`, or the name alone of a domain that the command lists, stands for a domain of libvirt, which the configuration adopts: `--release` leaves that domain alone until it is adopted again by name. Without SOCKET the command lists the sockets and domains that are adopted or are to be, each with its VM or with the reason why there is none.",
    options: { release: { summary: 'let go of a VM that was adopted' } },
    run: async ({ client, output, vm: socket, values }) => {
      const releases = values['release'] === true;
      if (releases && socket === '') throw new UsageError('adopt --release needs SOCKET');
      const [cli, connected] = await Promise.all([import('../src/control/cli/adopt.js'), client()]);
      if (socket === '') await cli.listAdopted(connected, output);
      else await (releases ? cli.release : cli.adopt)(connected, output, socket);
    },
  },
  {
    name: 'libvirt',
    group: 'print',
    beside: 'qemu-args',
    operands: ['action', 'domain'],
    choices: LIBVIRT_ACTIONS,
    summary: 'change a libvirt domain',
    details:
      "Gives a libvirt domain balloond's own device in place of QEMU's balloon (`enable`), or QEMU's balloon again (`disable`), from its next start on. libvirt checks the domain by its schema. The command needs no daemon, and is run as root.",
    options: {
      'dry-run': { summary: 'print the domain as it would be, and change nothing' },
      'socket-path': { value: 'path', summary: `where balloond listens for VMMs (default ${VMM_SOCKET})` },
    },
    run: async ({ output, vm, second, values }) => {
      const { changeDomain } = await import('../src/control/cli/libvirt.js');
      const socketPath = text(values, 'socket-path') ?? VMM_SOCKET;
      const action = oneOf(LIBVIRT_ACTIONS, vm) ?? 'enable';
      changeDomain(output, { action, domain: second ?? '', socketPath, dryRun: values['dry-run'] === true });
    },
  },
  {
    name: 'apply',
    group: 'order',
    operands: [],
    summary: 'bring VMs to the targets and limits of a file',
    details:
      'Brings VMs to the targets and limits of a file, and prints what changed. The file has `[[vm]]` tables with `match` (a name or a pattern), `memory`, `balloon`, `cache-limit`, `force` and the limits, as `set` and `limit` take them; of several tables that match a VM, the last one holds. Applied once more, the file changes nothing.',
    options: {
      file: { short: 'f', value: 'file', summary: 'the file, in TOML' },
      'dry-run': { summary: 'say what would change, and change nothing' },
    },
    run: async ({ client, output, values }) => {
      const path = text(values, 'file');
      if (path === undefined) throw new UsageError('apply needs --file FILE');
      const [{ apply }, connected] = await Promise.all([import('../src/control/cli/apply.js'), client()]);
      await apply(connected, output, path, values['dry-run'] === true);
    },
  },
  POLICY_COMMAND,
  {
    name: 'reload',
    group: 'daemon',
    operands: [],
    summary: 'have the daemon read its configuration file again',
    details:
      'Has the daemon read its configuration file again. A file with a mistake changes nothing. The answer names each change and when the change takes effect.',
    options: { 'dry-run': { summary: 'say what would change, and change nothing' } },
    run: async ({ client, output, values }) => {
      const [{ reload }, connected] = await Promise.all([import('../src/control/cli/reload.js'), client()]);
      await reload(connected, output, values['dry-run'] === true);
    },
  },
  {
    name: 'log-level',
    group: 'daemon',
    operands: ['level?'],
    choices: LOG_LEVELS,
    summary: 'show or set how much the daemon logs',
    details:
      'Shows the least level that the daemon logs, or sets it until the daemon restarts or reads its configuration again.',
    options: {},
    run: async ({ client, output, vm: level }) => {
      const [cli, connected] = await Promise.all([import('../src/control/cli/log-level.js'), client()]);
      await cli.logLevel(connected, output, oneOf(LOG_LEVELS, level) ?? null);
    },
  },
  {
    name: 'doctor',
    group: 'daemon',
    operands: [],
    summary: 'check this host and each VM, say what to mend',
    details:
      'Checks this host and each VM. Each line says `ok`, `note` (it works, and could be better) or `mend`, with the command that mends the finding; the exit is 1 when there is something to mend. Run doctor as root: doctor takes a file that it may not read for missing.',
    options: {},
    run: async ({ client, output }) => {
      const [{ doctor }, connected] = await Promise.all([import('../src/control/cli/doctor.js'), client()]);
      await doctor(connected, output, version());
    },
  },
  {
    name: 'completion',
    group: 'print',
    operands: ['shell'],
    choices: SHELLS,
    summary: 'a script that completes commands in a shell',
    details:
      'Prints a script that completes commands, options and VMs. bash: `eval "$(balloonctl completion bash)"`; zsh: `source <(balloonctl completion zsh)`; fish: `balloonctl completion fish | source`.',
    options: {},
    run: async ({ output, vm: shell }) => {
      const { completionScript } = await import('../src/control/cli/completion.js');
      const script = completionScript(oneOf(SHELLS, shell) ?? 'bash', COMMANDS, GLOBALS);
      if (output.json) output.document(script);
      else output.print(script);
    },
  },
  {
    name: 'qemu-args',
    group: 'print',
    operands: [],
    summary: 'VMM arguments to paste',
    details:
      'Prints the exact arguments with which a VMM gives its balloon to the daemon; for libvirt, prints a domain whose elements go into yours. The command needs no daemon.',
    options: {
      for: { value: 'vmm', choices: VMMS, summary: 'default qemu; libvirt: XML' },
      memory: { value: 'size', summary: `RAM of the guest (default ${formatSize(GUEST_BYTES)})` },
      name: { value: 'name', summary: 'name of the VM' },
      'socket-path': { value: 'path', summary: `where balloond listens for VMMs (default ${VMM_SOCKET})` },
      'cache-balloon': { summary: `a page cache balloon too, served at ${CACHE_SOCKET}` },
      'cache-socket-path': { value: 'path', summary: 'the same, served elsewhere' },
      'hot-plug': { summary: 'in a port from which the device can be unplugged (q35)' },
    },
    run: async ({ output, values }) => {
      const qemu = await import('../src/control/cli/qemu-args.js');
      const kind = oneOf(VMMS, text(values, 'for')) ?? 'qemu';
      const wanted = {
        memoryBytes: size(values, 'memory') ?? GUEST_BYTES,
        name: text(values, 'name'),
        socketPath: text(values, 'socket-path') ?? VMM_SOCKET,
        cacheSocketPath:
          text(values, 'cache-socket-path') ?? (values['cache-balloon'] === true ? CACHE_SOCKET : undefined),
        hotPlug: values['hot-plug'] === true,
      };
      const args = kind === 'libvirt' ? qemu.libvirtXml(wanted) : qemu.vmmArguments(kind, wanted);
      if (output.json) output.document(args);
      else output.print(typeof args === 'string' ? args : qemu.renderQemuArguments(args));
    },
  },
];
