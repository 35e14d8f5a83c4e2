#!/usr/bin/env node
/** balloonctl: parses the command line, runs one command, sets the exit code. */
import { parseCommandLine } from '../src/control/cli/command-line.js';
import { exitCode, EXIT } from '../src/control/cli/exit.js';
import { text } from '../src/control/cli/option-values.js';
import { openOutput } from '../src/control/cli/output.js';
import { outliveTerminals } from '../src/os/lost-terminal.js';
import { stderr, stdout } from '../src/os/print.js';
import { version } from '../src/version.js';
import { CONTROL_SOCKET } from '../src/control/cli/choices.js';
import { COMMANDS, GLOBALS } from './commands.js';

const SUMMARY = 'Shows and sets the memory balloons of the VMs that balloond serves.';

async function main(args: readonly string[]): Promise<void> {
  const line = parseCommandLine(args, COMMANDS, GLOBALS);
  if ('version' in line) {
    stdout.write(`balloonctl ${version()}\n`);
    return;
  }
  if ('help' in line) {
    if (line.asked && args.includes('--json')) {
      // What manual pages are made of.
      stdout.write(`${JSON.stringify({ summary: SUMMARY, commands: COMMANDS, options: GLOBALS })}\n`);
      return;
    }
    const { helpOfAll, helpOfCommand } = await import('../src/control/cli/help.js');
    const help =
      line.help === null
        ? helpOfAll('balloonctl', SUMMARY, COMMANDS, GLOBALS)
        : helpOfCommand('balloonctl', line.help, GLOBALS);
    (line.asked ? stdout : stderr).write(`${help}\n`);
    if (!line.asked) process.exitCode = EXIT.usage;
    return;
  }
  const { command, operands, values } = line;
  await command.run({
    vm: operands[0] ?? '',
    second: operands[1] ?? null,
    values,
    output: openOutput(stdout, process.env, values['json'] === true),
    client: async () => {
      const { ControlClient } = await import('../src/control/client.js');
      const path = text(values, 'control') ?? CONTROL_SOCKET;
      return new ControlClient(path, {
        ...(command.waits === false && { restartMs: 0 }),
        onAway: async (message) => {
          const { unitState } = await import('../src/control/cli/unreachable.js');
          if (path === CONTROL_SOCKET && unitState()?.stopped === true) return false;
          stderr.write(`balloonctl: waiting for the daemon: ${message}\n`);
          return true;
        },
      });
    },
  });
}

function fail(error: unknown, args: readonly string[]): void {
  process.exitCode = exitCode(error);
  const message = error instanceof Error ? error.message : String(error);
  const line = message.trim().replaceAll(/\s*\n\s*/g, ' ');
  const command = COMMANDS.find(({ name }) => args.includes(name));
  const help = command === undefined ? 'help' : `help ${command.name}`;
  const hint = process.exitCode === EXIT.usage ? ` (see balloonctl ${help})` : '';
  const opening = error instanceof Error && 'syscall' in error && error.syscall === 'open';
  const step = opening ? ': give the path of a file that can be opened' : '';
  stderr.write(`balloonctl: ${line}${step}${hint}\n`);
}

outliveTerminals();
// Node would open its inspector.
process.on('SIGUSR1', () => undefined);

const args = process.argv.slice(2);
void main(args).catch((error: unknown) => fail(error, args));
