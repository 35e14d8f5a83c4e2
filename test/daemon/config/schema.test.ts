// The schema that --print-schema prints, with a validator of others: it agrees with the parser. And the example file.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { parse } from 'smol-toml';
import t from 'tap';
import { Value } from 'typebox/value';
import { ConfigError } from '../../../src/daemon/config/mistakes.js';
import { readConfigFile } from '../../../src/daemon/config/read.js';
import { TABLE_WORDS } from '../../../src/daemon/config/words.js';
import { ConfigFile, deviceOptions } from '../../../src/daemon/settings.js';
import { PolicySettings } from '../../../src/policy/settings.js';
import { BIN } from '../../support/daemon.js';

const ROOT = join(import.meta.dirname, '../../../..');
const EXAMPLE = readFileSync(join(ROOT, 'deploy/balloond.toml'), 'utf8');

const printed = execFileSync(process.execPath, [join(BIN, 'balloond.js'), '--print-schema'], {
  encoding: 'utf8',
});
const validate = new Ajv2020({ allErrors: true, strict: true }).compile(JSON.parse(printed) as object);

/** Without [brackets]: taken by both, or refused by both. */
const GOOD = [
  '',
  'control = "/c"\nmetrics = "[::1]:9797"\nlog-level = "trace"\nlog-format = "journal"',
  '[[socket]]\npath = "/x"\ndevice = "cache-balloon"\nname = "a.b:c@d+e-f"\nstats-interval = 0\ndiscard-delay = 0.05',
  '[[vm]]\nmatch = "*"\nmin = " 1.5 GiB "\nmax = "100%"\nweight = 0.01\nshared-cgroup = true\nfeatures = []',
  '[policy]\nmode = "off"\nmemory = "8191T"\nreserve = "090%"\nramp = "0.5 %"\nhold = 0\nrecord-max = "5242880"',
  '[policy]\nband = [{ name = "a", kill = true, match = ["x", "y"], size = "on-demand" }]',
  '[[vm]]\nmatch = "*"\nsize = "working-set"',
];
const BAD = [
  'nothing = 1',
  'control = ""',
  'control = 1',
  'control = "a\\u0000"',
  'log-level = "INFO"',
  'metrics = true',
  'socket = {}',
  '[[socket]]\nname = "x"',
  '[[socket]]\npath = "/x"\nname = "a b"',
  '[[socket]]\npath = "/x"\nmatch = "x"',
  `[[socket]]\npath = "/${'x'.repeat(107)}"`,
  '[[socket]]\npath = "/x"\nfeatures = ["X"]',
  '[[socket]]\npath = "/x"\nstats-interval = 0.09',
  '[[socket]]\npath = "/x"\nstats-interval = 86401',
  '[[vm]]\nmatch = ""',
  '[[vm]]\nmatch = "x"\nmin = "1GB"',
  '[[vm]]\nmatch = "x"\nmin = "1.5"',
  '[[vm]]\nmatch = "x"\nmax = "101%"',
  '[[vm]]\nmatch = "x"\nweight = 0',
  '[policy]\nramp = "1G"',
  '[policy]\nrecord-max = "50%"',
  '[policy]\nband = []',
  '[[vm]]\nmatch = "x"\nsize = "small"',
  '[policy]\nmode = 1979-05-27',
  `[policy]\nband = [${Array.from({ length: 17 }, (_, n) => `{ name = "b${n}" }`).join()}]`,
];
/** What a schema cannot say: refused by the parser alone. */
const BEYOND = [
  'metrics = "9797"',
  '[policy]\ndefault-band = "none"',
  '[policy]\nreserve = "91%"',
  '[policy]\nmemory = "9999T"',
  '[[policy.band]]\nname = "a"\n[[policy.band]]\nname = "a"',
  '[[vm]]\nmatch = "x"\nmin = "2%"\nmax = "1%"',
];

function ours(file: string, text: string): boolean {
  writeFileSync(file, text);
  try {
    readConfigFile(file);
    return true;
  } catch (error) {
    if (error instanceof ConfigError) return false;
    throw error;
  }
}

void t.test('the printed schema, its source and the parser agree', (t) => {
  const file = join(t.testdir(), 'balloond.toml');
  for (const [texts, byParser, bySchema] of [
    [GOOD, true, true],
    [BAD, false, false],
    [BEYOND, false, true],
  ] as const) {
    for (const text of texts) {
      const document: unknown = parse(text);
      t.equal(ours(file, text), byParser, text);
      t.equal(validate(JSON.parse(JSON.stringify(document))), bySchema, text);
      t.equal(Value.Check(ConfigFile, document), bySchema, text);
    }
  }
  t.end();
});

/** The lines of the example, uncommented where `wanted` says so. */
function uncommented(wanted: (line: string) => boolean): string {
  return EXAMPLE.split('\n')
    .map((line) => (/^#[a-z[]/.test(line) && wanted(line) ? line.slice(1) : line))
    .join('\n');
}

void t.test('the example is as the tables have it, and says the defaults', (t) => {
  const generated = readFileSync(join(ROOT, 'out/generated/balloond.toml'), 'utf8');
  t.equal(EXAMPLE, generated, 'after a change: cp out/generated/balloond.toml deploy/balloond.toml');
  t.match(EXAMPLE.split('\n')[0], /^#:schema \/usr\/share\/balloond\/balloond\.schema\.json$/);
  t.same(parse(EXAMPLE), {}, 'all of it is commented out');
  const file = join(t.testdir(), 'balloond.toml');
  for (const { header, keys } of TABLE_WORDS) {
    for (const key of Object.keys(keys)) {
      const text = oneKey(header, key);
      const parsed = JSON.stringify(parse(text));
      t.match(parsed, `"${key}":`, `${header ?? ''} ${key}`);
      t.ok(ours(file, text), text);
      t.ok(validate(JSON.parse(parsed)), text);
    }
  }
  const all = uncommented(() => true);
  t.ok(ours(file, all), 'and all of them together');
  t.end();
});

/** The example with one key of one table, and what the table cannot do without. */
function oneKey(header: string | null, key: string): string {
  let current: string | null = null;
  return uncommented((line) => {
    if (line.startsWith('#[')) current = line.slice(1);
    if (current !== header) return false;
    const name = /^#([a-z-]+) =/.exec(line)?.[1] ?? '';
    const needed = { '[[socket]]': 'path', '[[vm]]': 'match', '[[policy.band]]': 'name' }[header ?? ''];
    // Without its band the file would name one that is built in.
    return line.startsWith('#[') || name === key || name === needed;
  });
}

void t.test('defaults of the example change nothing', (t) => {
  const file = join(t.testdir(), 'balloond.toml');
  const defaults = (of: string | null): ConfigFile => {
    let current: string | null = null;
    let standard = false;
    const text = EXAMPLE.split('\n').map((line) => {
      if (line.startsWith('#[')) current = line.slice(1);
      if (line.startsWith('# ')) standard = !line.includes('(An example.)');
      const needed = /^#(path|match) /.test(line);
      const isKey = /^#[a-z-]+ =/.test(line) && (standard || needed);
      return current === of && (line.startsWith('#[') || isKey) ? line.slice(1) : line;
    });
    writeFileSync(file, text.join('\n'));
    return readConfigFile(file);
  };
  const top = defaults(null);
  t.same(top, { control: '/run/balloond/control.sock', 'log-level': 'info' });
  const policy = defaults('[policy]');
  t.ok(Object.keys(policy.policy ?? {}).length >= 10);
  const [said, without] = [new PolicySettings(policy), new PolicySettings({})];
  t.same(said, without);
  t.same(said.config(2 ** 30), without.config(2 ** 30));
  const socket = defaults('[[socket]]').socket?.[0];
  t.match(socket, { 'discard-delay': Number, device: 'balloon' });
  t.same(deviceOptions({}, socket ?? null, 'x'), deviceOptions({}, null, 'x'));
  const vm = defaults('[[vm]]');
  t.ok(vm.vm?.[0]?.['stats-interval'] !== undefined);
  t.same(deviceOptions(vm, null, 'db-1'), deviceOptions({}, null, 'db-1'));
  t.end();
});
