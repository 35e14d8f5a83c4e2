// --check-config refuses what start-up refuses, in the same words: both are run on each file.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { BIN } from '../support/daemon.js';
import { NEXT_STEP } from '../support/next-step.js';

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function balloond(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [join(BIN, 'balloond.js'), ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? 128), stdout, stderr });
    });
  });
}

const folder = mkdtempSync(join(tmpdir(), 'balloond-'));
t.teardown(() => rmSync(folder, { recursive: true }));
writeFileSync(join(folder, 'plain'), '');
mkdirSync(join(folder, 'folder'));
const SOCKET = `[[socket]]\npath = "${folder}/v.sock"\n`;

/** Of each file all that is wrong in it. */
const BAD: readonly (readonly [text: string | Buffer, ...lines: RegExp[]])[] = [
  [`${SOCKET}nmae = "y"\n`, /:3:1: socket\.0\.nmae is unknown: did you mean name\?$/],
  [`${SOCKET}[policy`, /:3:\d+: the file is not TOML here/],
  [Buffer.from(`${SOCKET}name = "\xe9"`, 'latin1'), /:3:9: the file is not UTF-8/],
  [SOCKET + SOCKET, /:4:1: socket\.1\.path is the path of another/],
  [`control = "${folder}/v.sock"\n${SOCKET}`, /:3:1: socket\.0\.path is the path of control/],
  [`${SOCKET}stats-interval = 0.05\n[policy]\ninterval = 0.05\n`, /:3:1: /, /:5:1: policy\.interval must/],
  [`[[socket]]\npath = "${folder}/none/v.sock"\n`, /:2:1: .* does not exist: create/],
  [`[[socket]]\npath = "${folder}/plain"\n`, /:2:1: .* is a file and no socket/],
  [`[[socket]]\npath = "${folder}/folder"\n`, /:2:1: .* is a folder/],
  [`[[socket]]\npath = "/${'x'.repeat(120)}"\n`, /:2:1: socket\.0\.path has 121 bytes/],
  [`[[socket]]\npath = "/a\\u0000"\n`, /:2:1: socket\.0\.path must be a path .*without NUL/],
  [
    `${SOCKET}[policy]\ndefault-band = "x"\nmetrics = 1\n`,
    /:4:1: policy\.default-band/,
    /:5:1: .*move it to/,
  ],
  [`${SOCKET}[[vm]]\nmatch = "*"\ntarget = "lots"\n`, /:5:1: vm\.0\.target must be a percentage/],
  [`${SOCKET}[[vm]]\nmatch = "*"\ntarget = "120%"\n`, /:5:1: vm\.0\.target /],
  [
    `${SOCKET}[[vm]]\nmatch = "*"\ntarget = "512"\n`,
    /:5:1: vm\.0\.target \(512\) is 512 bytes: did you mean 512M\?$/,
  ],
  [
    `${SOCKET}[[vm]]\nmatch = "*"\ntarget = "524288"\n`,
    /vm\.0\.target \(524288\) is 524288 bytes: did you mean 524288K\?$/,
  ],
  [
    `${SOCKET}[[vm]]\nmatch = "*"\ntarget = "1G"\nmin = "2G"\nmax = "512M"\npolicy = "auto"\n`,
    /:5:1: vm\.0\.target \(1G\) is below min \(2G\): raise/,
    /:5:1: vm\.0\.target \(1G\) is above max \(512M\): lower/,
    /:6:1: vm\.0\.min /,
    /:8:1: vm\.0\.policy "auto" contradicts target/,
  ],
  [`${SOCKET}[[vm]]\nmatch = "*"\ninhibit = ""\n`, /:5:1: vm\.0\.inhibit must be a reason of 1 to 200/],
  [
    `${SOCKET}[[vm]]\nmatch = "*"\npolicy = "by hand"\n`,
    /:5:1: vm\.0\.policy must be one of auto, manual, and is "by hand"/,
  ],
];

void t.test('what is refused, is refused by both in the same words', async (t) => {
  for (const [n, [text, ...expected]] of BAD.entries()) {
    const file = join(folder, `${n}.toml`);
    writeFileSync(file, text);
    const config = [
      '--config',
      file,
      ...(text.includes('control =') ? [] : ['--control', join(folder, 'c')]),
    ];
    const [checked, started] = await Promise.all([
      balloond('--check-config', ...config),
      balloond(...config),
    ]);
    t.equal(checked.stderr, started.stderr);
    t.same([checked.code, started.code], [1, 2]);
    t.equal(checked.stdout, '');
    const lines = checked.stderr.trimEnd().split('\n');
    t.equal(lines.length, expected.length, checked.stderr);
    expected.forEach((words, at) => t.match(lines[at] ?? '', words));
    for (const line of lines) {
      t.ok(line.startsWith(`balloond: ${file}:`), line);
      t.match(line, NEXT_STEP);
    }
  }
});

void t.test('what is right, is right with its drop-ins', async (t) => {
  const file = join(folder, 'good.toml');
  writeFileSync(file, SOCKET);
  mkdirSync(`${file}.d`);
  writeFileSync(join(`${file}.d`, 'more.toml'), 'log-level = "warn"\n');
  const config = ['--check-config', '--config', file, '--control', join(folder, 'c')];
  const said = `${file}: nothing wrong\n${file}.d/more.toml: nothing wrong\n`;
  t.match(await balloond(...config), { code: 0, stdout: said, stderr: '' });
  writeFileSync(join(`${file}.d`, 'more.toml'), '\n log-level = "warm"\n');
  const { code, stderr } = await balloond(...config);
  t.equal(code, 1);
  t.match(stderr, /more\.toml:2:2: log-level must be one of .*: did you mean warn\?\n$/);
});
