/**
 * Does what the pages say, as they say it: README.md first, on a fresh Debian 13, then all other pages on the host that it
 * leaves. Compares what commands print with what pages show, and prints a table of what was run, and what was not and why.
 * Takes minutes and needs root and a network, so it is run by name: npm test -- out/test/docs/run.check.js. With
 * DOCS_PAGES=docs/limits.md,… it runs README.md and these.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { HostVm, TESTS } from '../support/host-lab/host-vm.js';
import { commandsOf, goesOn, type ShownCommand } from './commands.js';
import { CHECKOUT, DebianHost, REST_OF_QEMU, type Said } from './debian-host.js';
import { allPages, hasCommands, ROOT, type Block, type Mark, type Page, type Place } from './page.js';
import { isAsShown, shape } from './shape.js';

t.setTimeout(0);

/** Far more than any takes, also where the machine has much else to do. */
const COMMAND_SECONDS = 1500;
/** How long a command that goes on is listened to. */
const LISTEN_SECONDS = 15;
const TIME_UP = 124;
const GOAL_SECONDS = 240;

/** What a page takes for granted of the machine of its reader, and how it comes to be. */
const GIVEN: Readonly<Record<string, string>> = {
  'docs/installing.md': 'useradd --system libvirt-qemu; useradd alice',
};
/** What `balloonctl doctor` ends with where there is something to mend, as its page says: here, the cgroups. */
const MAY_END_WITH: Readonly<Record<string, number>> = { 'balloonctl doctor': 1 };

const chosen = process.env['DOCS_PAGES']?.split(',');
const pages = allPages()
  .filter(({ blocks }) => blocks.length > 0)
  .filter(({ path }) => path === 'README.md' || chosen === undefined || chosen.includes(path));
const host = await DebianHost.start();
t.teardown(() => host.close());
let virtual: Promise<HostVm> | null = null;
t.teardown(async () => (await virtual)?.close());

const begun = performance.now();
/** Until `balloonctl list` had a VM in it. */
let firstListSeconds: number | null = null;
/** Of commands that the way there does not need. */
let asideSeconds = 0;
const ASIDE = 'npm run demo';

/** A host in a VM, with the package installed, serving one VM that is called web-1. */
async function virtualHost(): Promise<HostVm> {
  const vm = await HostVm.boot();
  await vm.install();
  await vm.ok('useradd --system vmm && systemctl enable --now balloond.socket balloond.service');
  await vm.ok(
    'systemd-run --quiet --unit=web-1 --service-type=notify --uid=vmm --property=SupplementaryGroups=balloond-vmm ' +
      `node ${TESTS}/out/test/support/host-lab/vmm.js /run/balloond/balloond.sock -name guest=web-1 shared`,
  );
  return vm;
}

async function ask(place: Place, text: string): Promise<Said> {
  const command = text.startsWith('qemu-system-') ? text.replace(/ \.\.\.$/, ` ${REST_OF_QEMU}`) : text;
  if (place === 'virtual host') {
    const { code, output } = await (await (virtual ??= virtualHost())).sh(command);
    return { code, text: output };
  }
  return host.sh(command, {
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
    const started = performance.now();
    const said = await ask(place, command.text);
    const seconds = (performance.now() - started) / 1000;
    t.comment(`${block.page}:${command.line} (${seconds.toFixed(1)} s) ${command.text}`);
    if (command.text.startsWith(ASIDE)) asideSeconds += seconds;
    const problem = problemOf(command, said, exact);
    if (problem === null) t.pass(command.text);
    else t.fail(`${block.page}:${command.line}: ${command.text}: ${problem.slice(-3000)}`);
    if (firstListSeconds === null && command.text.startsWith('balloonctl list') && /^web-1 /m.test(said.text))
      firstListSeconds = (performance.now() - begun) / 1000 - asideSeconds;
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
  readonly left: Map<string, number>;
}
const rows: Row[] = [];

async function runPage(t: Test, { path, blocks }: Page): Promise<void> {
  const row: Row = { page: path, blocks: blocks.length, run: 0, checked: 0, left: new Map() };
  rows.push(row);
  const given = GIVEN[path];
  if (given !== undefined) t.equal((await ask('host', given)).code, 0, `given: ${given}`);
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
}

for (const page of pages) await t.test(page.path, (t) => runPage(t, page));

await t.test('from a fresh Debian to a VM in `balloonctl list`', (t) => {
  t.ok(firstListSeconds !== null, 'README.md leads there');
  console.error(
    `README.md: ${firstListSeconds?.toFixed(0)} s from its first command to a VM in \`balloonctl list\`, without ${ASIDE} (goal: ${GOAL_SECONDS} s)`,
  );
  t.end();
});

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
console.error(`\n| page (${version}) | blocks | run | checked | not run |\n|---|---|---|---|---|`);
for (const { page, blocks, run, checked, left } of rows) {
  const reasons = [...left].map(([reason, count]) => `${count}: ${reason}`).join('; ');
  console.error(`| ${page} | ${blocks} | ${run} | ${checked} | ${reasons} |`);
}
