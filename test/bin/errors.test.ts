/**
 * What balloonctl and balloond can be asked wrongly, made of the tables of their commands and options: each is one line
 * that names the next step, and the exit code says of which kind it is.
 */
import { execFile } from 'node:child_process';
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseCommandLine, type CommandSpec } from '../../src/control/cli/command-line.js';
import { helpOfAll, helpOfCommand } from '../../src/control/cli/help.js';
import { UsageError } from '../../src/control/cli/exit.js';
import { daemonProgram } from '../../src/daemon/options.js';
import type { CommandTable } from '../../src/manual/pages.js';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from '../support/balloon-driver.js';
import { BIN, DaemonProcess } from '../support/daemon.js';
import { temporaryFolder } from '../support/fleet.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { NEXT_STEP } from '../support/next-step.js';
import { ANY_VMM } from '../support/vmm-orders.js';
import { bits } from '../support/wire.js';

const RAM_BYTES = 64 * 2 ** 20;
const AT_ONCE = 3;

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function run(program: string, folder: string, ...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [join(folder, `${program}.js`), ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? 128), stdout, stderr });
    });
  });
}

async function tryAll(
  t: Test,
  program: string,
  cases: readonly (readonly [code: number, ...args: string[]])[],
): Promise<void> {
  const left = cases.map((one, index) => [index, one] as const);
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const [, [expected, ...args]] = next;
      const { code, stderr } = await run(program, BIN, ...args);
      const said = `${args.join(' ')}: ${stderr}`;
      t.equal(code, expected, said);
      t.match(stderr, new RegExp(`^${program}: [^\n]+\n$`), said);
      t.match(stderr.trimEnd(), NEXT_STEP, said);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

const table = new Promise<CommandTable>((resolve, reject) => {
  execFile(process.execPath, [join(BIN, 'balloonctl.js'), 'help', '--json'], (error, stdout) => {
    if (error === null) resolve(JSON.parse(stdout) as CommandTable);
    else reject(new Error(error.message));
  });
});

const required = ({ operands }: CommandSpec): string[] =>
  operands.filter((operand) => !operand.endsWith('?')).map((operand) => (operand === 'vm' ? 'web' : operand));

void t.test('no command line that the table does not allow is taken, and none says nothing', async (t) => {
  const { commands, options } = await table;
  const wrong: string[][] = [['nonsense'], ['--nonsense'], ['help', 'nonsense']];
  for (const command of commands) {
    const { name, operands, choices } = command;
    const words =
      choices === undefined ? required(command) : [choices[0] ?? '', ...required(command).slice(1)];
    wrong.push([name, ...words, '--nonsense'], [name, ...operands.map(() => choices?.[0] ?? 'web'), 'x']);
    if (required(command).length > 0) wrong.push([name, ...words.slice(1)]);
    if (choices !== undefined) wrong.push([name, 'nonsense']);
    for (const [option, spec] of Object.entries({ ...command.options, ...options })) {
      if (spec.value === undefined) wrong.push([name, ...words, `--${option}=x`]);
      else wrong.push([name, ...words, `--${option}`]);
      if (spec.choices !== undefined) wrong.push([name, ...words, `--${option}`, 'nonsense']);
    }
  }
  for (const args of wrong) {
    try {
      parseCommandLine(args, commands, options);
      t.fail(`taken: ${args.join(' ')}`);
    } catch (error) {
      t.type(error, UsageError, args.join(' '));
      t.notMatch(error instanceof Error ? error.message : '\n', /\n|^$/);
    }
  }
  t.ok(wrong.length > 80, `${wrong.length} tried`);
});

void t.test('balloonctl', async (t) => {
  const daemon = await DaemonProcess.start();
  t.teardown(() => daemon.stop());
  const frontend = new Frontend({
    order: ANY_VMM,
    socket: daemon.socketPath,
    ram: new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]),
  });
  await frontend.connect();
  t.teardown(() => frontend.close());
  await BalloonDriver.start(frontend, { features: LINUX_FEATURES & ~bits(BALLOON_F.STATS_VQ) });
  const vm = `pid-${process.pid}`;
  const folder = temporaryFolder(t);
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const control = ['--control', daemon.controlPath];
  const { commands } = await table;
  const local = ['completion', 'qemu-args', 'doctor', 'help'];
  const connecting = commands.filter(({ name, options }) => !local.includes(name) && !('trace' in options));
  const more: Record<string, string[]> = { set: ['--memory', '1G'], limit: ['--high', '1G'] };
  const every = (command: CommandSpec, name: string): string[] => [
    command.name,
    ...required(command).map((word) => (word === 'web' ? name : word)),
    ...(more[command.name] ?? []),
  ];
  const simulate = ['policy', 'simulate'];
  await tryAll(t, 'balloonctl', [
    [3, 'list', '--control', join(folder, 'none')],
    [3, 'list', '--control', file('plain', '')],
    ...connecting
      .filter(({ operands }) => operands.includes('vm'))
      .map((command) => [1, ...every(command, 'nobody'), ...control] as const),
    ...['pause', 'resume', 'explain'].map((action) => [1, 'policy', action, 'nobody', ...control] as const),
    [2, 'policy', 'explain', ...control],
    [2, 'set', vm, ...control],
    [2, 'set', vm, '--memory', '1M', '--balloon', '1M', ...control],
    [2, 'set', vm, '--memory', '1M', '--cache-limit', '1M', ...control],
    [2, 'set', vm, '--cache-limit', '1M', '--wait', ...control],
    [2, 'set', vm, '--memory', '1M', '--timeout', '3', ...control],
    [2, 'set', vm, '--memory', '1M', '--wait', '--timeout', 'soon', ...control],
    ...['memory', 'balloon', 'cache-limit'].map(
      (option) => [2, 'set', vm, `--${option}`, '1GB', ...control] as const,
    ),
    [1, 'set', vm, '--memory', '1T', ...control],
    [1, 'set', vm, '--cache-limit', '1M', ...control],
    [4, 'set', vm, '--balloon', '1M', '--wait', '--timeout', '0.1', ...control],
    [1, 'stats', vm, ...control],
    [1, 'stats', vm, '--refresh', ...control],
    [2, 'limit', vm, ...control],
    [2, 'limit', vm, '--high', 'low', ...control],
    [2, 'limit', vm, '--max', 'low', ...control],
    [2, 'qemu-args', '--memory', 'x'],
    [2, 'qemu-args', '--memory', '1K'],
    [2, ...simulate],
    ...['synthetic', 'hours', 'vms-per-host', 'seed'].map(
      (option) => [2, ...simulate, `--${option}`, 'x'] as const,
    ),
    [2, ...simulate, '--synthetic', '1', '--host-memory', 'x'],
    [1, ...simulate, '--trace', join(folder, 'none')],
    [1, ...simulate, '--trace', file('bad.ndjson', 'x\n')],
    [1, ...simulate, '--synthetic', '1', '--config', join(folder, 'none')],
    [1, ...simulate, '--synthetic', '1', '--config', file('bad.toml', '[policy]\nmode = "x"\n')],
    [1, ...simulate, '--synthetic', '1', '--hours', '1', '--plot', join(folder, 'none/x.svg')],
  ]);
});

void t.test('without the native helper, whoever needs it is told what to do', async (t) => {
  const folder = temporaryFolder(t);
  cpSync(BIN, join(folder, 'out/bin'), { recursive: true });
  cpSync(join(BIN, '../../package.json'), join(folder, 'package.json'));
  const daemon = await run('balloond', join(folder, 'out/bin'), '--socket-path', join(folder, 'v.sock'));
  t.equal(daemon.code, 1);
  t.match(daemon.stderr, /^balloond: the native helper does not load [^\n]+\n$/);
  t.match(daemon.stderr.trimEnd(), NEXT_STEP);
  const doctor = await run(
    'balloonctl',
    join(folder, 'out/bin'),
    'doctor',
    '--control',
    join(folder, 'none'),
  );
  t.match(doctor.stdout, /^mend {2}host: discard: .*helper does not load\n +-> npm run build$/m);
});

void t.test('balloond', (t) => {
  const { options } = daemonProgram('0');
  const wrong = [
    ...options.filter((option) => option.required).map(({ long }) => [long ?? '']),
    ...options
      .filter(({ argChoices }) => argChoices !== undefined)
      .map(({ long }) => [long ?? '', 'nonsense']),
    ...[['--nonsense'], ['nonsense'], ['--fd', 'x'], ['--fd', '3', '--socket-path', 'x']],
    ...[
      ['--fd', '3', '--supervise'],
      ['--check-config', '--supervise'],
    ],
  ];
  for (const args of wrong) {
    let said = '';
    const program = daemonProgram('0')
      .exitOverride((error) => {
        throw error;
      })
      .configureOutput({ writeErr: (text) => (said += text) });
    t.throws(() => program.parse(args, { from: 'user' }), args.join(' '));
    t.match(said, /^balloond: [^\n]+\n$/);
    t.match(said.trimEnd(), NEXT_STEP);
  }
  t.end();
});

void t.test('every help fits a screen of 80 columns and 24 lines', async (t) => {
  const { summary, commands, options } = await table;
  const texts = [
    helpOfAll('balloonctl', summary, commands, options),
    daemonProgram('0').helpInformation(),
    ...commands.map((command) => helpOfCommand('balloonctl', command, options)),
  ];
  for (const text of texts) {
    const lines = text.trimEnd().split('\n');
    t.match(lines[0], /^Usage: /);
    t.ok(lines.length <= 24, `${lines.length} lines: ${lines[0] ?? ''}`);
    for (const line of lines) t.ok(line.length <= 80, line);
  }
});
