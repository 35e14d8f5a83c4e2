/** Every command of balloonctl and balloond that somebody reads is one that the programs take. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { commandsOf } from './commands.js';
import {
  DAEMON_OPTIONS,
  invocationsIn,
  problemOf,
  problemOfMention,
  problemOfSentence,
  TABLE,
  type Program,
} from './invocations.js';
import { allPages, hasCommands, ROOT } from './page.js';

const pages = allPages();

void t.test('those that pages show are parsed by the real tables', (t) => {
  let count = 0;
  for (const { path, blocks, spans } of pages) {
    const typed = blocks
      .filter(({ language }) => hasCommands(language))
      .flatMap((block) => commandsOf(block));
    for (const [lines, problem] of [
      [typed, problemOf],
      [spans.filter(({ text }) => text.includes(' ')), problemOfMention],
    ] as const) {
      for (const { line, text } of lines) {
        for (const found of invocationsIn(text)) {
          count++;
          t.equal(problem(found), null, `${path}:${line}: ${text}`);
        }
      }
    }
  }
  t.ok(count > 60, `${count} of them`);
  t.end();
});

void t.test('the usage that docs/balloonctl.md shows is that of the table', (t) => {
  const usage = pages
    .find(({ path }) => path === 'docs/balloonctl.md')
    ?.blocks.find(({ text }) => text.startsWith('balloonctl ['))?.text;
  const lines = (usage ?? '').split('\n').slice(1);
  const shown = new Map<string, Set<string>>();
  let current = '';
  for (const line of lines) {
    const [, name] = /^ {2}([a-z-]+)/.exec(line) ?? [];
    current = name ?? current;
    const options = shown.get(current) ?? new Set<string>();
    for (const [, option = ''] of line.matchAll(/--([a-z-]+)/g)) options.add(option);
    shown.set(current, options);
  }
  t.same([...shown.keys()].sort(), TABLE.commands.map(({ name }) => name).sort());
  for (const { name, options } of TABLE.commands)
    for (const option of shown.get(name) ?? []) t.ok(option in options, `${name} has --${option}`);
  t.end();
});

void t.test('each option is told of in a page', (t) => {
  const told = pages.map(({ source }) => source).join('\n');
  const has = (option: string): boolean => new RegExp(`--${option}(?![\\w-])`).test(told);
  for (const { name, options } of TABLE.commands)
    for (const option of Object.keys(options)) t.ok(has(option), `balloonctl ${name} --${option}`);
  for (const option of Object.keys(TABLE.options)) t.ok(has(option), `balloonctl --${option}`);
  for (const { long } of DAEMON_OPTIONS) t.ok(has(long?.slice(2) ?? ''), `balloond ${long}`);
  t.end();
});

/** Files whose text operators read: messages, events, manual pages, units, alerts, dashboards, manifests. */
function textsOfPrograms(): [path: string, text: string][] {
  const folders = ['src', 'bin', 'protocol', 'deploy', 'systemd', 'scripts', 'guest'];
  return folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .map((path) => join(folder, path))
      .filter((path) => !path.includes('/build/') && statSync(join(ROOT, path)).isFile())
      .map((path): [string, string] => [path, readFileSync(join(ROOT, path), 'utf8')]),
  );
}

/** What stands in backquotes, values that are filled in being `VM`. Of a program: in its strings, not as its strings. */
function spansOf(path: string, text: string): string[] {
  const found = path.endsWith('.ts')
    ? [...text.matchAll(/\\`(balloon(?:ctl|d) [^`\n]*?)\\`|'[^'\n]*`(balloon(?:ctl|d) [^`\n]*)`[^'\n]*'/g)]
    : [...text.matchAll(/`(balloon(?:ctl|d) [^`\n]*)`/g)];
  return found.map(([, one, other]) => (one ?? other ?? '').replaceAll(/\$?\{\{?[^}]*\}\}?/g, 'VM'));
}

void t.test('those in messages, manual pages, units and alerts have the options that they name', (t) => {
  let count = 0;
  const check = (where: string, text: string): void => {
    for (const { 1: program, 2: rest = '' } of text.matchAll(
      /(?<![\w/-]|--unit )(balloonctl|balloond) ([^\n]*)/g,
    )) {
      count++;
      t.equal(problemOfSentence(program as Program, rest), null, `${where}: ${program} ${rest.slice(0, 60)}`);
    }
    for (const span of spansOf(where, text))
      for (const found of invocationsIn(span)) t.equal(problemOfMention(found), null, `${where}: ${span}`);
  };
  for (const [path, text] of textsOfPrograms()) check(path, text);
  for (const { path, texts } of pages) for (const { line, text } of texts) check(`${path}:${line}`, text);
  for (const unit of ['balloond.service', 'balloond-limits@.service']) {
    const text = readFileSync(join(ROOT, 'systemd', unit), 'utf8');
    for (const [, command = ''] of text.matchAll(/^Exec\w+=(.*)$/gm))
      for (const found of invocationsIn(command)) t.equal(problemOf(found), null, `${unit}: ${command}`);
  }
  t.ok(count > 60, `${count} of them`);
  t.end();
});

void t.test('what the programs do not take is found', (t) => {
  const problem = (line: string): string | null | undefined => invocationsIn(line).map(problemOf)[0];
  t.match(problem('balloonctl set web-1 --mem 1G'), /unknown option '--mem'/);
  t.match(problem('sudo balloonctl lst'), /unknown command 'lst'/);
  t.match(problem('node out/bin/balloond.js --sock /x &'), /unknown option/);
  t.match(problem('balloonctl list --wait'), /unknown option '--wait'/);
  t.equal(problem('balloonctl set VM --balloon SIZE --wait | cat'), null);
  t.same(invocationsIn('journalctl --unit balloond --follow'), []);
  t.match(problemOfSentence('balloonctl', 'show --wait says why'), /show has no --wait/);
  t.end();
});
