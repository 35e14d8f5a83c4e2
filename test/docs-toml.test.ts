// Every TOML block of the documentation passes --check-config, where the folders that it names exist.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { BIN } from './support/daemon.js';
import { temporaryFolder } from './support/fleet.js';

const ROOT = join(import.meta.dirname, '../..');
const PAGES = ['README.md', ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)].filter((name) =>
  name.endsWith('.md'),
);

/** Fenced as toml, or written by a here-document into a file that ends with .toml. */
const BLOCKS = /^```toml\n([^]*?)^```$|^cat >\S+\.toml <<'?END'?\n([^]*?)^END$/gm;

void t.test('each TOML block is right', (t) => {
  const folder = temporaryFolder(t);
  let found = 0;
  for (const page of PAGES) {
    for (const [, fenced, written] of readFileSync(join(ROOT, page), 'utf8').matchAll(BLOCKS)) {
      const text = fenced ?? written ?? '';
      const file = join(folder, `${++found}.toml`);
      writeFileSync(file, text);
      // An empty /run as an installed balloond has it.
      const script =
        'mount -t tmpfs tmpfs /run && mkdir -p /run/balloond/vmm && exec "$1" "$2" --check-config --config "$3"';
      const command = [
        '--mount',
        'sh',
        '-ec',
        script,
        'sh',
        process.execPath,
        join(BIN, 'balloond.js'),
        file,
      ];
      const { status, stderr } = spawnSync('unshare', command, { encoding: 'utf8' });
      t.equal(status, 0, `${page}: ${stderr}\n${text}`);
    }
  }
  t.ok(found >= 3, `${found} blocks`);
  t.end();
});
