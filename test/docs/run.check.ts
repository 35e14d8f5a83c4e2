/**
 * Does what the pages say, as they say it: README.md first, on a fresh Debian 13, then all other pages on the host that it
 * leaves. Compares what commands print with what pages show, and prints a table of what was run, and what was not and why.
 * Takes minutes and needs root and a network, so it is run by name: npm test -- out/test/docs/run.check.js. With
 * DOCS_PAGES=docs/limits.md,… it runs README.md, which makes the host, and these. stderr follows it command by command.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { HostVm, TESTS } from '../support/host-lab/host-vm.js';
import { commandsOf, goesOn, type ShownCommand } from './commands.js';
import { CHECKOUT, DebianHost, REST_OF_QEMU, type Said } from './debian-host.js';
import {
  allPages,
  hasCommands,
  readPage,
  ROOT,
  type Block,
  type Mark,
  type Page,
  type Place,
} from './page.js';
import { isAsShown, shape } from './shape.js';

t.setTimeout(0);

/** Far more than any takes, also where the machine has much else to do. */
const COMMAND_SECONDS = 1500;
/** How long a command that goes on is listened to. */
const LISTEN_SECONDS = 15;
const TIME_UP = 124;
const GOAL_SECONDS = 240;

/** What a page takes for granted of the machine of its reader: how that comes to be, and how it goes again. */
const GIVEN: Readonly<Record<string, { readonly before: string; readonly after: string }>> = {
  'docs/installing.md': { before: 'useradd --system libvirt-qemu; useradd alice', after: ':' },
  'docs/configuration.md': {
    before: `cp -a /etc/balloond.toml /root/balloond.toml.kept
printf '[policy]\nmode = "observe"\ndefault-band = "golden"\n' >/etc/balloond.toml.d/policy.toml
printf '# Two mistakes\nlog-levle = "info"\n' >/etc/balloond.toml`,
    after: 'mv /root/balloond.toml.kept /etc/balloond.toml; rm /etc/balloond.toml.d/policy.toml',
  },
};
/** Commands whose page shows them find something: here, doctor the cgroups, and the check of a configuration its mistakes. */
const MAY_END_WITH: Readonly<Record<string, number>> = {
  'balloonctl doctor': 1,
  'balloond --check-config': 1,
};

// Each command has a deadline of its own.
t.setTimeout(0);
/** Where a page has a command go on for longer than its check has to. */
const SHORTER: readonly (readonly [shown: string, run: string])[] = [
  ['--seconds 600', '--seconds 5'],
  ['--only ring --seed 1 ', '--only ring --seed 1 --seconds 5 '],
];

const chosen = process.env['DOCS_PAGES']?.split(',');
const wanted = allPages().filter(
  ({ path, blocks }) => blocks.length > 0 && (chosen === undefined || chosen.includes(path)),
);
/** README.md makes the host of all other pages, but not the one in a VM. */
const needsHost = wanted.some(({ blocks }) =>
  blocks.some(({ mark }) => mark?.kind !== 'run' || mark.place !== 'virtual host'),
);
const pages = needsHost
  ? [readPage('README.md'), ...wanted.filter(({ path }) => path !== 'README.md')]
  : wanted;
const isReadmeWanted = wanted.some(({ path }) => path === 'README.md');
let debian: Promise<DebianHost> | null = null;
t.teardown(async () => (await debian)?.close());
let virtual: Promise<HostVm> | null = null;
t.teardown(async () => (await virtual)?.close());

/** The way of README.md to a VM in `balloonctl list`, without commands that it does not need. */
const way: { readonly command: string; readonly seconds: number; readonly load: number }[] = [];
let arrived = false;
const ASIDE = 'npm run demo';

/** A host in a VM, with the package installed, serving one VM that is called web-1. */
async function virtualHost(): Promise<HostVm> {
  const vm = await HostVm.boot();
  try {
    await vm.install();
    await vm.ok('useradd --system vmm && systemctl enable --now balloond.socket balloond.service');
    await vm.ok(
      'systemd-run --quiet --unit=web-1 --service-type=notify --uid=vmm --property=SupplementaryGroups=balloond-vmm ' +
        `node ${TESTS}/out/test/support/host-lab/vmm.js /run/balloond/balloond.sock -name guest=web-1 shared`,
    );
    return vm;
  } catch (error) {
    await vm.close();
    throw error;
  }
}

function asRun(text: string): string {
  if (text.startsWith('qemu-system-')) return text.replace(/ \.\.\.$/, ` ${REST_OF_QEMU}`);
  return SHORTER.reduce((command, [shown, run]) => command.replace(shown, run), text);
}

async function ask(place: Place, text: string): Promise<Said> {
  const command = asRun(text);
  if (place === 'virtual host') {
    const { code, output } = await (await (virtual ??= virtualHost())).sh(command);
    return { code, text: output };
  }
  return (await (debian ??= DebianHost.start())).sh(command, {
    cwd: place === 'repository' ? CHECKOUT : '/root',
    timeoutSeconds: goesOn(text) ? LISTEN_SECONDS : COMMAND_SECONDS,
  });
}

/** Why the command did not do what its page says; null: it did. */
function problemOf(
  { text, output }: ShownCommand,
  { code, text: printed }: Said,
  exact: boolean,
): string | null {
  if (goesOn(text)) {
    if (code !== TIME_UP) return `it ended with ${code}, and was to go on: ${printed}`;
    // Where only some events are asked for there may be none.
    return printed === '' && !text.includes('--level') ? 'it printed nothing' : null;
  }
  const [typed = ''] = text.split(/ +#/);
  if (code !== 0 && MAY_END_WITH[typed] !== code) return `it ended with ${code}: ${printed}`;
  const refused = /"status":[45]\d\d/.exec(printed);
  if (refused !== null) return `it was refused: ${printed}`;
  if (output === null || isAsShown(printed, output, exact)) return null;
  const form = exact ? (said: string) => said : shape;
  return `it printed\n${form(printed)}\nand the page shows\n${form(output)}`;
}

async function run(t: Test, block: Block, { place, exact }: Extract<Mark, { kind: 'run' }>): Promise<void> {
  for (const command of commandsOf(block)) {
    // The pages after README.md do without.
    if (command.text.startsWith(ASIDE) && !isReadmeWanted) continue;
    const started = performance.now();
    const said = await ask(place, command.text);
    const seconds = (performance.now() - started) / 1000;
    if (!arrived && !command.text.startsWith(ASIDE))
      way.push({ command: command.text, seconds, load: loadavg()[0] ?? 0 });
    arrived ||= command.text.startsWith('balloonctl list') && /^web-1 /m.test(said.text);
    const problem = problemOf(command, said, exact);
    const where = `${block.page}:${command.line}`;
    console.error(`${where} (${seconds.toFixed(1)} s) ${problem === null ? '' : 'FAILED '}${command.text}`);
    if (problem === null) t.pass(command.text);
    else t.fail(`${where}: ${command.text}: ${problem.slice(-3000)}`);
  }
}

/** Has the program that reads such a file read it. */
async function check(t: Test, block: Block): Promise<void> {
  const file =
    block.language === 'toml' ? '/tmp/balloond.toml' : '/run/systemd/system/balloond.service.d/page.conf';
  const write = `mkdir -p ${file.replace(/\/[^/]*$/, '')} && cat >${file} <<'END-OF-BLOCK'\n${block.text}\nEND-OF-BLOCK\n`;
  const command =
    block.language === 'toml'
      ? `balloond --check-config --config ${file}`
      : `systemd-analyze verify --man=no balloond.service; status=$?; rm ${file}; exit $status`;
  const { code, text } = await ask('host', write + command);
  t.equal(code, 0, `${block.page}:${block.line}: ${text}`);
  if (block.language === 'ini') t.equal(text, '', `${block.page}:${block.line}`);
}

interface Row {
  readonly page: string;
  blocks: number;
  run: number;
  checked: number;
  seconds: number;
  failed: boolean;
  readonly left: Map<string, number>;
}
const rows: Row[] = [];

async function runPage(t: Test, { path, blocks }: Page): Promise<void> {
  const row: Row = {
    page: path,
    blocks: blocks.length,
    run: 0,
    checked: 0,
    seconds: 0,
    failed: false,
    left: new Map(),
  };
  rows.push(row);
  const started = performance.now();
  const given = GIVEN[path];
  if (given !== undefined)
    t.equal((await ask('host', given.before)).code, 0, 'the page finds what it takes for granted');
  for (const block of blocks) {
    const { mark, language, line } = block;
    if (mark?.kind === 'not run') row.left.set(mark.reason, (row.left.get(mark.reason) ?? 0) + 1);
    else if (mark?.kind === 'run' && hasCommands(language)) {
      row.run++;
      await t.test(`${path}:${line}`, (t) => run(t, block, mark));
    } else {
      row.checked++;
      if (language === 'toml' || language === 'ini') await t.test(`${path}:${line}`, (t) => check(t, block));
    }
  }
  if (given !== undefined) t.equal((await ask('host', given.after)).code, 0, 'and leaves nothing of it');
  row.seconds = (performance.now() - started) / 1000;
  row.failed = !t.passing();
}

for (const page of pages) await t.test(page.path, (t) => runPage(t, page));

await t.test(
  'from a fresh Debian to a VM in `balloonctl list`',
  { skip: !needsHost && 'no page needs it' },
  (t) => {
    t.ok(arrived, 'README.md leads there');
    const seconds = way.reduce((sum, one) => sum + one.seconds, 0);
    const load = Math.max(...way.map((one) => one.load));
    console.error('\n| s | load | README.md |\n|---|---|---|');
    for (const one of way)
      console.error(
        `| ${one.seconds.toFixed(1)} | ${one.load.toFixed(1)} | ${one.command.replaceAll(/\s+/g, ' ').slice(0, 100)} |`,
      );
    console.error(
      `README.md: ${seconds.toFixed(0)} s from its first command to a VM in \`balloonctl list\`, without ${ASIDE}, at a load of ` +
        `${load.toFixed(1)} on ${availableParallelism()} cores: ${GOAL_SECONDS} s ${seconds < GOAL_SECONDS ? 'reached' : 'NOT reached'}`,
    );
    t.end();
  },
);

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
console.error(
  `\n| page (${version}) | | s | blocks | run | checked | not run |\n|---|---|---|---|---|---|---|`,
);
for (const { page, failed, seconds, blocks, run, checked, left } of rows) {
  const reasons = [...left].map(([reason, count]) => `${count}: ${reason}`).join('; ');
  console.error(
    `| ${page} | ${failed ? 'FAILED' : 'passed'} | ${seconds.toFixed(0)} | ${blocks} | ${run} | ${checked} | ${reasons} |`,
  );
}
