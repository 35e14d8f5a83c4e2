/**
 * Checks Kubernetes objects against the API's own schema, which kubernetes-types brings as TypeScript: the compiler
 * finds unknown fields, wrong types and what is missing. It does not know which words a string field takes.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { parseAllDocuments } from 'yaml';

export const ROOT = join(import.meta.dirname, '../../..');

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
}

const MODULES: Readonly<Record<string, string>> = {
  v1: 'core/v1',
  'apps/v1': 'apps/v1',
  'networking.k8s.io/v1': 'networking/v1',
};

export function readManifest(path: string): KubernetesObject[] {
  const documents = parseAllDocuments(readFileSync(join(ROOT, path), 'utf8'));
  return documents.map((document) => {
    if (document.errors.length > 0) throw new Error(`${path}: ${document.errors.join('; ')}`);
    return document.toJS() as KubernetesObject;
  });
}

/** What is wrong with each of the objects, in the compiler's words; none: nothing. */
export function schemaMistakes(objects: readonly KubernetesObject[]): string[][] {
  const sources = new Map(objects.map((object, at) => [join(ROOT, `manifest-${at}.ts`), sourceOf(object)]));
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    types: [],
    target: ts.ScriptTarget.ES2023,
    module: ts.ModuleKind.Preserve,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
  };
  const host = ts.createCompilerHost(options);
  const readSource = host.getSourceFile.bind(host);
  host.getSourceFile = (name, version, ...rest) => {
    const source = sources.get(name);
    return source === undefined
      ? readSource(name, version, ...rest)
      : ts.createSourceFile(name, source, version);
  };
  const program = ts.createProgram([...sources.keys()], options, host);
  return [...sources.keys()].map((name) =>
    program
      .getSemanticDiagnostics(program.getSourceFile(name))
      .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n')),
  );
}

function sourceOf(object: KubernetesObject): string {
  const module = MODULES[object.apiVersion];
  if (module === undefined) throw new Error(`no schema of ${object.apiVersion}`);
  return `import type { ${object.kind} } from 'kubernetes-types/${module}';
export const object: ${object.kind} = ${JSON.stringify(object)};`;
}
