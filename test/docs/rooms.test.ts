/** Each folder of src begins, in its main file, with a few lines on what is here, who calls it, and in which order. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from './page.js';

/** The main file of each folder. */
const MAIN: Readonly<Record<string, string>> = {
  balloon: 'balloon.ts',
  control: 'server.ts',
  'control/cli': 'command-line.ts',
  daemon: 'daemon.ts',
  'daemon/config': 'read.ts',
  governor: 'tick.ts',
  host: 'cgroup.ts',
  libvirt: 'libvirt.ts',
  manual: 'pages.ts',
  memory: 'guest-memory.ts',
  native: 'native.h',
  ops: 'fd-store.ts',
  os: 'native.ts',
  page: 'page.ts',
  policy: 'plan.ts',
  qmp: 'client.ts',
  simulate: 'command.ts',
  'vhost-user': 'session.ts',
  virtqueue: 'queue.ts',
  vm: 'vm.ts',
};

void t.test('each folder says what is in it', (t) => {
  const folders = readdirSync(join(ROOT, 'src'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(entry.parentPath, entry.name)))
    .map((entry) => join(entry.parentPath, entry.name).slice(join(ROOT, 'src').length + 1))
    .filter((folder) => readdirSync(join(ROOT, 'src', folder)).some((name) => /\.(ts|c)$/.test(name)))
    .filter((folder) => !folder.includes('build'));
  t.same(folders.sort(), Object.keys(MAIN).sort(), 'a folder that is new has a main file in this table');
  for (const [folder, file] of Object.entries(MAIN)) {
    const text = readFileSync(join(ROOT, 'src', folder, file), 'utf8');
    const [, head = ''] = /^\/\*\*?\n([^]*?)\*\//.exec(text) ?? [];
    t.ok(head.trim().split('\n').length >= 3, `${folder}/${file} begins with lines on its folder`);
    t.match(
      head,
      /\bcalls?\b|\bcaller\b|\bmakes?\b|\bstarts\b|\bloads\b/,
      `${folder}/${file} says who calls it`,
    );
    const others = readdirSync(join(ROOT, 'src', folder)).filter((name) => name !== file);
    const named = others.filter((name) => new RegExp(`\\b${name.replace(/\.\w+$/, '')}\\b`, 'i').test(head));
    t.ok(
      named.length >= Math.min(2, others.length),
      `${folder}/${file} names files beside it: ${named.join(', ')}`,
    );
  }
  t.end();
});
