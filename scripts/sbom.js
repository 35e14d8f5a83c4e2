// Writes out/generated/balloond.cdx.json: what is in the programs, as package-lock.json pins it, in CycloneDX's form. npm 9
// has no `npm sbom`. The same lock gives the same bytes.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const read = (path) => JSON.parse(readFileSync(join(root, path), 'utf8'));
const { name, version, license, description } = read('package.json');
const { packages } = read('package-lock.json');
const PREFIX = 'node_modules/';

const purl = (path) => {
  const full = path === '' ? name : path.slice(path.lastIndexOf(PREFIX) + PREFIX.length);
  return `pkg:npm/${full.replace('@', '%40')}@${path === '' ? version : packages[path].version}`;
};

// As Node looks for it: beside the package's own, then further up.
const resolve = (from, wanted) => {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf(`/${PREFIX}`)))) {
    const path = `${folder === '' ? '' : `${folder}/`}${PREFIX}${wanted}`;
    if (path in packages) return path;
    if (folder === '') throw new Error(`package-lock.json has no ${wanted}, which ${from} depends on`);
  }
};

const needs = (path) => Object.keys(packages[path].dependencies ?? {}).map((each) => resolve(path, each));
// The page has it inside, so that nothing of it is installed.
const BUNDLED = ['uplot'];
const found = new Set();
for (const queue = [...needs(''), ...BUNDLED.map((each) => resolve('', each))]; queue.length > 0;) {
  const path = queue.pop();
  if (found.has(path)) continue;
  found.add(path);
  queue.push(...needs(path));
}
const shipped = [...found].sort();

const component = (path) => {
  const { version: its, license: terms, integrity = '' } = packages[path];
  const [algorithm = '', hash = ''] = integrity.split('-');
  return {
    type: 'library',
    'bom-ref': purl(path),
    name: path.slice(path.lastIndexOf(PREFIX) + PREFIX.length),
    version: its,
    purl: purl(path),
    ...(terms && { licenses: [{ expression: terms }] }),
    ...(algorithm === 'sha512' && {
      hashes: [{ alg: 'SHA-512', content: Buffer.from(hash, 'base64').toString('hex') }],
    }),
  };
};

const bill = {
  $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
  bomFormat: 'CycloneDX',
  specVersion: '1.5',
  version: 1,
  metadata: {
    component: {
      type: 'application',
      'bom-ref': purl(''),
      name,
      version,
      description,
      purl: purl(''),
      licenses: [{ expression: license }],
    },
  },
  components: shipped.map(component),
  dependencies: ['', ...shipped].map((path) => ({
    ref: purl(path),
    dependsOn: [...needs(path), ...(path === '' ? BUNDLED.map((each) => resolve('', each)) : [])]
      .map(purl)
      .sort(),
  })),
};
writeFileSync(join(root, 'out/generated/balloond.cdx.json'), `${JSON.stringify(bill, null, 2)}\n`);
