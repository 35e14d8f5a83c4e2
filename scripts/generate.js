// Writes what is made of the tables in the sources, so that it cannot drift from them, to out/generated.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageCatalog } from '../out/protocol/control/message-catalog.js';
import { exampleFile } from '../out/src/daemon/config/example.js';
import { configSchemaText } from '../out/src/daemon/config/json-schema.js';
import { configPage, controlPage, daemonPage } from '../out/src/manual/pages.js';

const root = join(import.meta.dirname, '..');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const balloonctl = (...args) =>
  execFileSync(process.execPath, [join(root, 'out/bin/balloonctl.js'), ...args], { encoding: 'utf8' });

const folder = join(root, 'out/generated');
mkdirSync(folder, { recursive: true });
const files = {
  'balloond.catalog': messageCatalog(),
  'balloond.8': daemonPage(version),
  'balloonctl.1': controlPage(version, JSON.parse(balloonctl('help', '--json'))),
  'balloond.toml.5': configPage(version),
  'balloond.toml': exampleFile(),
  'balloond.schema.json': `${configSchemaText()}\n`,
  'balloonctl.bash': balloonctl('completion', 'bash'),
  'balloonctl.zsh': balloonctl('completion', 'zsh'),
  'balloonctl.fish': balloonctl('completion', 'fish'),
};
for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
