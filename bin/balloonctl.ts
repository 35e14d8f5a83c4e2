#!/usr/bin/env node
/** balloonctl: parses the command line, runs one command, sets the exit code. Commands load on use. */
import { formatSize, parseSize } from '../protocol/control/size.js';
import { parseCommandLine, type CommandSpec, type OptionValues } from '../src/control/cli/command-line.js';
import { exitCode, EXIT, UsageError } from '../src/control/cli/exit.js';
import { openOutput, type Output } from '../src/control/cli/output.js';
import type { ControlClient } from '../src/control/client.js';

const SUMMARY = 'Shows and sets the memory balloons of the VMs that balloond serves.';
const CONTROL_SOCKET = '/run/balloond/control.sock';
const VMM_SOCKET = '/run/balloond/balloond.sock';
const WAIT_SECONDS = 60;
const GUEST_BYTES = 2 * 1024 ** 3;

/** What a command gets. */
interface Call {
  /** The first operand, where the table names one. */
  vm: string;
  values: OptionValues;
  output: Output;
  /** Connects to the daemon. */
  client: () => Promise<ControlClient>;
}

interface Command extends CommandSpec {
  run(call: Call): Promise<void>;
}

const GLOBALS = {
  control: { value: 'path', summary: `control socket of balloond (default ${CONTROL_SOCKET})` },
  json: { summary: 'print one JSON document (events: one a line)' },
};

const COMMANDS: readonly Command[] = [
  {
    name: 'list',
    operands: [],
    summary: 'one line a VM',
    options: {},
    run: async ({ client, output }) => {
      const [{ list }, connected] = await Promise.all([import('../src/control/cli/list.js'), client()]);
      await list(connected, output);
    },
  },
  {
    name: 'show',
    operands: ['vm'],
    summary: 'everything known of one VM',
    options: {},
    run: async ({ client, output, vm }) => {
      const [{ show }, connected] = await Promise.all([import('../src/control/cli/show.js'), client()]);
      await show(connected, output, vm);
    },
  },
  {
    name: 'set',
    operands: ['vm'],
    summary: 'set the balloon target',
    options: {
      memory: { value: 'size', summary: 'what the guest keeps' },
      balloon: { value: 'size', summary: 'what the guest gives up' },
      wait: { summary: 'wait until the guest has followed' },
      timeout: {
        value: 'seconds',
        summary: `with --wait: give up after this long (default ${WAIT_SECONDS})`,
      },
    },
    run: async ({ client, output, vm, values }) => {
      const target = targetOf(values);
      const timeout = seconds(values, 'timeout');
      const wait = values['wait'] === true;
      if (timeout !== undefined && !wait) throw new UsageError('--timeout needs --wait');
      const [{ setTarget }, connected] = await Promise.all([
        import('../src/control/cli/set-target.js'),
        client(),
      ]);
      await setTarget(connected, output, vm, target, wait ? (timeout ?? WAIT_SECONDS) : null);
    },
  },
  {
    name: 'stats',
    operands: ['vm'],
    summary: 'guest statistics, by their virtio names',
    options: { refresh: { summary: 'ask the guest for fresh ones' } },
    run: async ({ client, output, vm, values }) => {
      const [{ stats }, connected] = await Promise.all([import('../src/control/cli/show.js'), client()]);
      await stats(connected, output, vm, values['refresh'] === true);
    },
  },
  {
    name: 'inhibit',
    operands: ['vm'],
    summary: 'stop discarding for this VM',
    options: { reason: { value: 'text', summary: 'why, for whoever looks next' } },
    run: async ({ client, output, vm, values }) => {
      const [{ inhibit }, connected] = await Promise.all([import('../src/control/cli/inhibit.js'), client()]);
      await inhibit(connected, output, vm, text(values, 'reason'));
    },
  },
  {
    name: 'allow',
    operands: ['vm'],
    summary: 'resume discarding for this VM',
    options: {},
    run: async ({ client, output, vm }) => {
      const [{ allow }, connected] = await Promise.all([import('../src/control/cli/inhibit.js'), client()]);
      await allow(connected, output, vm);
    },
  },
  {
    name: 'events',
    operands: [],
    summary: 'what happened and why, newest last',
    options: { follow: { summary: 'go on with what happens next' } },
    run: async ({ client, output, values }) => {
      const [{ events }, connected] = await Promise.all([import('../src/control/cli/events.js'), client()]);
      await events(connected, output, values['follow'] === true);
    },
  },
  {
    name: 'reload',
    operands: [],
    summary: 'have the daemon read its configuration file again',
    options: {},
    run: async ({ client, output }) => {
      const [{ reload }, connected] = await Promise.all([import('../src/control/cli/reload.js'), client()]);
      await reload(connected, output);
    },
  },
  {
    name: 'doctor',
    operands: [],
    summary: 'check this host and each VM, say what to mend',
    options: {},
    run: async ({ client, output }) => {
      const [{ doctor }, connected] = await Promise.all([import('../src/control/cli/doctor.js'), client()]);
      await doctor(connected, output);
    },
  },
  {
    name: 'qemu-args',
    operands: [],
    summary: 'the exact arguments to paste, for QEMU and others',
    options: {
      for: { value: 'vmm', summary: 'qemu (default), cloud-hypervisor, crosvm or libvirt (XML)' },
      memory: { value: 'size', summary: `RAM of the guest (default ${formatSize(GUEST_BYTES)})` },
      name: { value: 'name', summary: 'name of the VM' },
      'socket-path': { value: 'path', summary: `where balloond listens for VMMs (default ${VMM_SOCKET})` },
    },
    run: async ({ output, values }) => {
      const qemu = await import('../src/control/cli/qemu-args.js');
      const kind = qemu.vmmKind(text(values, 'for') ?? 'qemu');
      const wanted = {
        memoryBytes: size(values, 'memory') ?? GUEST_BYTES,
        name: text(values, 'name'),
        socketPath: text(values, 'socket-path') ?? VMM_SOCKET,
      };
      const args = kind === 'libvirt' ? qemu.libvirtXml(wanted) : qemu.vmmArguments(kind, wanted);
      if (output.json) output.document(args);
      else output.print(typeof args === 'string' ? args : qemu.renderQemuArguments(args));
    },
  },
];

function targetOf(values: OptionValues): { memoryBytes: number } | { balloonBytes: number } {
  const memoryBytes = size(values, 'memory');
  const balloonBytes = size(values, 'balloon');
  if (memoryBytes !== undefined && balloonBytes !== undefined) {
    throw new UsageError('--memory cannot be used with --balloon: one is the RAM less the other');
  }
  if (memoryBytes !== undefined) return { memoryBytes };
  if (balloonBytes !== undefined) return { balloonBytes };
  throw new UsageError('set needs --memory SIZE (what the guest keeps) or --balloon SIZE (what it gives up)');
}

function text(values: OptionValues, name: string): string | undefined {
  const value = values[name];
  return typeof value === 'string' ? value : undefined;
}

function size(values: OptionValues, name: string): number | undefined {
  const value = text(values, name);
  try {
    return value === undefined ? undefined : parseSize(value);
  } catch (error) {
    throw new UsageError(`--${name}: ${(error as Error).message}`);
  }
}

function seconds(values: OptionValues, name: string): number | undefined {
  const value = text(values, name);
  if (value === undefined) return undefined;
  if (!/^\d+(\.\d+)?$/.test(value)) throw new UsageError(`--${name}: write seconds, such as 60 or 0.5`);
  return Number(value);
}

async function main(args: readonly string[]): Promise<void> {
  const line = parseCommandLine(args, COMMANDS, GLOBALS);
  if ('help' in line) {
    const { helpOfAll, helpOfCommand } = await import('../src/control/cli/help.js');
    const help =
      line.help === null
        ? helpOfAll('balloonctl', SUMMARY, COMMANDS, GLOBALS)
        : helpOfCommand('balloonctl', line.help, GLOBALS);
    (line.asked ? process.stdout : process.stderr).write(`${help}\n`);
    if (!line.asked) process.exitCode = EXIT.usage;
    return;
  }
  const { command, operands, values } = line;
  await command.run({
    vm: operands[0] ?? '',
    values,
    output: openOutput(process.stdout, process.env, values['json'] === true),
    client: async () => {
      const { ControlClient } = await import('../src/control/client.js');
      return new ControlClient(text(values, 'control') ?? CONTROL_SOCKET);
    },
  });
}

function fail(error: unknown): void {
  process.exitCode = exitCode(error);
  const message = error instanceof Error ? error.message : String(error);
  const line = message.trim().replaceAll(/\s*\n\s*/g, ' ');
  const hint = process.exitCode === EXIT.usage ? ' (see balloonctl help)' : '';
  process.stderr.write(`balloonctl: ${line}${hint}\n`);
}

// A reader such as `head` that has seen enough is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(EXIT.done);
});

await main(process.argv.slice(2)).catch(fail);
