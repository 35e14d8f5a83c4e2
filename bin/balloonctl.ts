#!/usr/bin/env node
/** balloonctl: parses the command line, runs one command, sets the exit code. Commands load on use. */
import { createRequire } from 'node:module';
import type { Option as CommanderOption } from 'commander';
import { parseSize } from '../protocol/control/size.js';
import { exitCode, EXIT, UsageError } from '../src/control/cli/exit.js';
import { openOutput, type Output } from '../src/control/cli/output.js';
import type { ControlClient } from '../src/control/client.js';

// As the CommonJS it is: its ES module wrapper costs 8 ms more.
const { Command, CommanderError, InvalidArgumentError, Option } = createRequire(import.meta.url)(
  'commander',
) as typeof import('commander');

const CONTROL_SOCKET = '/run/balloond/control.sock';
const VMM_SOCKET = '/run/balloond/balloond.sock';
const WAIT_SECONDS = 60;

const program = new Command('balloonctl')
  .description('Shows and sets the memory balloons of the VMs that balloond serves.')
  .option('--control <path>', 'control socket of balloond', CONTROL_SOCKET)
  .option('--json', 'print one JSON document (events: one a line)')
  .exitOverride()
  .configureOutput({ outputError: () => undefined });

program
  .command('list')
  .description('one line a VM')
  .action(async () => {
    const [{ list }, client] = await Promise.all([import('../src/control/cli/list.js'), connected()]);
    await list(client, output());
  });

program
  .command('show <vm>')
  .description('everything known of one VM')
  .action(async (vm: string) => {
    const [{ show }, client] = await Promise.all([import('../src/control/cli/show.js'), connected()]);
    await show(client, output(), vm);
  });

program
  .command('set <vm>')
  .description('set the balloon target')
  .addOption(sizeOption('--memory <size>', 'what the guest keeps').conflicts('balloon'))
  .addOption(sizeOption('--balloon <size>', 'what the guest gives up'))
  .option('--wait', 'wait until the guest has followed')
  .option('--timeout <seconds>', `with --wait: give up after this long (default: ${WAIT_SECONDS})`, seconds)
  .action(async (vm: string, options: SetOptions) => {
    const target = targetOf(options);
    if (options.timeout !== undefined && !options.wait) throw new UsageError('--timeout needs --wait');
    const waitSeconds = options.wait ? (options.timeout ?? WAIT_SECONDS) : null;
    const [{ setTarget }, client] = await Promise.all([
      import('../src/control/cli/set-target.js'),
      connected(),
    ]);
    await setTarget(client, output(), vm, target, waitSeconds);
  });

program
  .command('stats <vm>')
  .description('guest statistics, by their virtio names')
  .option('--refresh', 'ask the guest for fresh ones')
  .action(async (vm: string, options: { refresh?: true }) => {
    const [{ stats }, client] = await Promise.all([import('../src/control/cli/show.js'), connected()]);
    await stats(client, output(), vm, options.refresh ?? false);
  });

program
  .command('inhibit <vm>')
  .description('stop discarding for this VM')
  .option('--reason <text>', 'why, for whoever looks next')
  .action(async (vm: string, options: { reason?: string }) => {
    const [{ inhibit }, client] = await Promise.all([import('../src/control/cli/inhibit.js'), connected()]);
    await inhibit(client, output(), vm, options.reason);
  });

program
  .command('allow <vm>')
  .description('resume discarding for this VM')
  .action(async (vm: string) => {
    const [{ allow }, client] = await Promise.all([import('../src/control/cli/inhibit.js'), connected()]);
    await allow(client, output(), vm);
  });

program
  .command('events')
  .description('what happened and why, newest last')
  .option('--follow', 'go on with what happens next')
  .action(async (options: { follow?: true }) => {
    const [{ events }, client] = await Promise.all([import('../src/control/cli/events.js'), connected()]);
    await events(client, output(), options.follow ?? false);
  });

program
  .command('qemu-args')
  .description('the exact QEMU arguments to paste')
  .addOption(sizeOption('--memory <size>', 'RAM of the guest').default(parseSize('2G'), '2G'))
  .option('--name <name>', 'name of the VM')
  .option('--socket-path <path>', 'where balloond listens for VMMs', VMM_SOCKET)
  .action(async (options: { memory: number; name?: string; socketPath: string }) => {
    const { qemuArguments, renderQemuArguments } = await import('../src/control/cli/qemu-args.js');
    const { memory, name, socketPath } = options;
    const args = qemuArguments({ memoryBytes: memory, name, socketPath });
    const out = output();
    if (out.json) out.document(args);
    else out.print(renderQemuArguments(args));
  });

interface SetOptions {
  memory?: number;
  balloon?: number;
  wait?: true;
  timeout?: number;
}

function targetOf({ memory, balloon }: SetOptions): { memoryBytes: number } | { balloonBytes: number } {
  if (memory !== undefined) return { memoryBytes: memory };
  if (balloon !== undefined) return { balloonBytes: balloon };
  throw new UsageError('set needs --memory SIZE (what the guest keeps) or --balloon SIZE (what it gives up)');
}

function sizeOption(flags: string, description: string): CommanderOption {
  return new Option(flags, description).argParser((text) => {
    try {
      return parseSize(text);
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  });
}

function seconds(text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text)) throw new InvalidArgumentError('Write seconds, such as 60 or 0.5');
  return Number(text);
}

async function connected(): Promise<ControlClient> {
  const { ControlClient } = await import('../src/control/client.js');
  return new ControlClient(program.opts<{ control: string }>().control);
}

function output(): Output {
  return openOutput(process.stdout, process.env, program.opts<{ json?: true }>().json ?? false);
}

function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return;
    process.exitCode = EXIT.usage;
    // Without a command the help itself was printed.
    if (error.code === 'commander.help') return;
  } else {
    process.exitCode = exitCode(error);
  }
  const message = error instanceof Error ? error.message : String(error);
  const line = message
    .replace(/^error: /, '')
    .trim()
    .replaceAll(/\s*\n\s*/g, ' ');
  const hint = process.exitCode === EXIT.usage ? ' (see balloonctl help)' : '';
  process.stderr.write(`balloonctl: ${line}${hint}\n`);
}

// A reader such as `head` that has seen enough is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(EXIT.done);
});

await program.parseAsync().catch(fail);
