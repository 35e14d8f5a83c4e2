// Writes what is made of the tables in the sources, so that it cannot drift from them, to out/generated.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageCatalog } from '../out/protocol/control/message-catalog.js';

const folder = join(import.meta.dirname, '../out/generated');
mkdirSync(folder, { recursive: true });
const files = { 'balloond.catalog': messageCatalog() };
for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
