// Files of a configuration: what is wrong in them, all of it, each with its place; and how several become one.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ConfigError } from '../../../src/daemon/config/mistakes.js';
import { readConfigFile, readConfiguration } from '../../../src/daemon/config/read.js';
import { temporaryFolder } from '../../support/fleet.js';
import { NEXT_STEP } from '../../support/next-step.js';

function fileWith(t: Test, content: string | Buffer): string {
  const file = join(t.testdir(), 'balloond.toml');
  writeFileSync(file, content);
  return file;
}

function linesOf(read: () => unknown): readonly string[] {
  try {
    read();
  } catch (error) {
    if (error instanceof ConfigError) return error.lines;
    throw error;
  }
  return [];
}

const WRONG: readonly (readonly [text: string | Buffer, ...lines: RegExp[]])[] = [
  ['control = ', /:1:\d+: the file is not TOML here \(.*\): see/],
  [Buffer.from('# ü\ncontrol = "\xfc"\n', 'latin1'), /:1:3: the file is not UTF-8: save/],
  ['control = "/c"\n  contrl = "x"', /:2:3: contrl is unknown: did you mean control\?$/],
  ['log_level = "info"', /: log_level is unknown: did you mean log-level\?$/],
  ['mode = "auto"', /: mode is unknown here: move it to \[policy\]$/],
  [
    '[[qmp]]\npath = "/x"\nname = "a"',
    /:3:1: qmp\.0\.name is unknown here, because .*: take it out, and give QEMU the name/,
  ],
  [
    '[[qmp]]\npath = "/x/[ab].qmp"',
    /:2:1: qmp\.0\.path has \[, which stands for no letters .*: use \* or \?/,
  ],
  ['[[qmp]]\npath = "/x/**/a"', /qmp\.0\.path has \*\*, which/],
  ['[[socket]]\npath = "/x"\nmin = "1G"', /:3:1: socket\.0\.min is unknown here: move it to \[\[vm\]\] or/],
  ['zzzzzz = 1', /: zzzzzz is unknown: see balloond\.toml\(5\)/],
  ['[[socket]]\nname = "x"', /:1:1: socket\.0 has no path: add path = /],
  [
    '[[socket]]\npath = "/x"\nfeatures = ["VIRTIO_BALLOON_F_STAT_VQ"]',
    /:3:1: socket\.0\.features\.0 must be one of .*: did you mean VIRTIO_BALLOON_F_STATS_VQ\?$/,
  ],
  [
    'log-level = "loud"',
    /:1:1: log-level must be one of trace, debug, info, warn, error, fatal, and is "loud"/,
  ],
  ['log-level = 1979-05-27', /:1:1: log-level must be one of .*, and is a date/],
  [
    '[[vm]]\nmatch = "*"\n[[vm]]\nmatch = "a"\n discard-delay = 1',
    /:5:2: vm\.1\.discard-delay must be a number from 0 to 0\.05, and is 1: give/,
  ],
  ['control = """\nlog-level = 1\n"""\nlog-level = 2', /:4:1: log-level/],
  ['socket = 3', /:1:1: socket must be an array, and is 3: write \[\[socket\]\]/],
  ['[socket]\npath = "/x"', /:1:1: socket must be an array, and is a table: write \[\[socket\]\]/],
  ['policy = "auto"', /:1:1: policy must be a table, and is "auto": write \[policy\]/],
  ['control = "/c"\nmetrics = "9797"', /:2:1: metrics is no address: give HOST:PORT/],
  ['control = "/a\\u0000b"', /:1:1: control must be a path of at most 107 bytes, without NUL, and is/],
  [`control = "/${'x'.repeat(110)}"`, /:1:1: control has 111 bytes: give a path of at most 107 bytes/],
  ['[policy]\nmode = "force"', /:2:1: policy\.mode must be one of observe, auto, off/],
  ['[policy]\nreserve = "many"', /:2:1: policy\.reserve must be a percentage such as "25%", or a size/],
  ['[policy]\nreserve = "99%"', /:2:1: policy\.reserve is more than 90%/],
  ['[policy]\ninterval = 0.09', /:2:1: policy\.interval must be a number from 0\.1 to 3600, and is 0\.09/],
  ['[policy]\ninterval = nan', /:2:1: policy\.interval must be a number/],
  [
    '[[vm]]\nmatch = "*"\nstats-interval = 0.05',
    /:3:1: vm\.0\.stats-interval must be 0 or a number from 0\.1/,
  ],
  ['[policy]\ndefault-band = "lead"', /:2:1: policy\.default-band names no band: choose one of gold, silver/],
  ['[policy]\nrecord-max = "1K"', /:2:1: policy\.record-max must be a size from 1 MiB/],
  ['[[policy.band]]\nname = "a"\nmin = "60%"\nmax = "50%"', /:3:1: policy\.band\.0\.min .*above max/],
  [
    '[[policy.band]]\nname = "a"\n[[policy.band]]\nname = "a"',
    /:4:1: policy\.band\.1\.name is that of another/,
  ],
  [
    '[[policy.band]]\nname = "a"\nmatch = ["db-*"]\n[[policy.band]]\nname = "b"\nmatch = ["*-test"]',
    /:6:1: policy\.band\.1\.match .*"db-test".*"db-\*"/,
  ],
  [
    'log-level = "loud"\nnmae = 1\n[policy]\nramp = "0%"\nreserve = "99%"\n[[policy.band]]\nmin = "x"',
    /:1:1: log-level must/,
    /:2:1: nmae is unknown/,
    /:4:1: policy\.ramp must be more than 0%/,
    /:5:1: policy\.reserve is more than 90%/,
    /:6:1: policy\.band\.0 has no name/,
    /:7:1: policy\.band\.0\.min must be/,
  ],
];

void t.test('every mistake of a file is a line with its place and the next step', (t) => {
  for (const [text, ...expected] of WRONG) {
    const file = fileWith(t, text);
    const lines = linesOf(() => readConfigFile(file));
    t.equal(lines.length, expected.length, `${text.toString()}\n${lines.join('\n')}`);
    expected.forEach((words, n) => {
      const line = lines[n] ?? '';
      t.match(line, words);
      t.match(line, NEXT_STEP);
      t.ok(line.startsWith(file) && !line.includes('\n'), line);
    });
  }
  t.match(
    linesOf(() => readConfigFile('/none/x.toml')),
    [/^\/none\/x\.toml cannot be read \(ENOENT\): give/],
  );
  t.end();
});

void t.test('paths that cannot be listened on are found before anybody listens', (t) => {
  const folder = temporaryFolder(t);
  const at = (name: string): string => join(folder, name);
  writeFileSync(at('file'), '');
  mkdirSync(at('folder'));
  const socket = (path: string): string => `[[socket]]\npath = "${path}"\n`;
  const cases: [text: string, ...lines: RegExp[]][] = [
    [
      socket(at('a.sock')) + socket(at('a.sock')),
      /:5:1: socket\.1\.path is the path of another \[\[socket\]\]/,
    ],
    [socket(at('folder/../a.sock')) + socket(at('a.sock')), /:5:1: socket\.1\.path is the path of another/],
    [socket(at('c.sock')), /:3:1: socket\.0\.path is the path of control .* as well: give each its own/],
    [
      socket(at('none/a.sock')),
      /:3:1: socket\.0\.path lies in .*none, which does not exist: create its folder/,
    ],
    [
      socket(at('file/a.sock')),
      /:3:1: socket\.0\.path lies in .*file, which is no folder: give another path/,
    ],
    [socket(at('file')), /:3:1: socket\.0\.path is a file and no socket: move it away, or give/],
    [socket('a.sock'), /:3:1: socket\.0\.path is relative, .*: give a path that begins with \//],
    [socket(at('folder')), /:3:1: socket\.0\.path is a folder: give the path of a file in it/],
    [socket(`/${'ü'.repeat(60)}`), /:3:1: socket\.0\.path has 121 bytes: give a path of at most 107 bytes/],
  ];
  for (const [text, ...expected] of cases) {
    writeFileSync(at('balloond.toml'), `control = "${at('c.sock')}"\n${text}`);
    const lines = linesOf(() => readConfiguration({ config: at('balloond.toml') }));
    t.equal(lines.length, expected.length, lines.join('\n'));
    expected.forEach((words, n) => t.match(lines[n], words));
    for (const line of lines) t.match(line, NEXT_STEP);
  }
  const flags = { config: at('balloond.toml'), socketPath: at('none/x'), control: at('none/y') };
  t.match(
    linesOf(() => readConfiguration(flags)),
    [/^--control lies in/, /^--socket-path lies in/],
    'of flags as well, and those of the file do not matter then',
  );
  t.end();
});

void t.test('drop-ins: tables merge, sockets and VMs add up, bands replace', (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'balloond.toml');
  const dropIn = (name: string, text: string): void => writeFileSync(join(`${file}.d`, name), text);
  mkdirSync(`${file}.d`);
  writeFileSync(
    file,
    `control = "${folder}/c"\nlog-level = "info"
[[socket]]\npath = "${folder}/a"\n[[vm]]\nmatch = "*"\nmin = "10%"
[policy]\nmode = "observe"\nreserve = "7%"\n[[policy.band]]\nname = "a"\n[[policy.band]]\nname = "b"\n`,
  );
  dropIn('20.toml', `log-level = "debug"\n[policy]\nmode = "auto"\n[[vm]]\nmatch = "db-*"\nmin = "50%"\n`);
  dropIn('10.toml', `log-level = "warn"\n[[socket]]\npath = "${folder}/b"\n[[policy.band]]\nname = "only"\n`);
  dropIn('30.toml.dpkg-old', 'not read');
  dropIn('.40.toml', 'not read');
  const { config, files, sockets } = readConfiguration({ config: file });
  t.same(files, [file, `${file}.d/10.toml`, `${file}.d/20.toml`]);
  t.equal(config['log-level'], 'debug', 'the last one wins');
  t.same(
    sockets.map(({ path }) => path),
    [`${folder}/a`, `${folder}/b`],
  );
  t.same(
    config.vm?.map(({ match }) => match),
    ['*', 'db-*'],
  );
  t.match(config.policy, { mode: 'auto', reserve: '7%', band: [{ name: 'only' }] });
  t.equal(config.policy?.band?.length, 1);

  dropIn('10.toml', `loglevel = "warn"\n[[socket]]\npath = "${folder}/a"\n`);
  dropIn('20.toml', '[[vm]]\nmatch = "x"\nmin = "2%"\nmax = "1%"\n[policy]\ndefault-band = "c"\n');
  dropIn('30.toml', 'x = ');
  t.match(
    linesOf(() => readConfiguration({ config: file })),
    [
      /10\.toml:1:1: loglevel is unknown: did you mean log-level\?$/,
      /10\.toml:3:1: socket\.1\.path is the path of another/,
      /20\.toml:3:1: vm\.1\.min \(2%\) is above max/,
      /20\.toml:6:1: policy\.default-band names no band: choose one of a, b/,
      /30\.toml:1:\d+: the file is not TOML/,
    ],
    'each with the file that it is in',
  );
  t.end();
});
