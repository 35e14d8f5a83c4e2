/**
 * Every sentence with which the programs refuse something, found in their sources: each names the next step. What is
 * said at run time is tried in bin/errors.test.ts; here nothing is left out, not even what no test can bring about.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { OPERATIONS } from '../protocol/control/operations.js';
import { NEXT_STEP } from './support/next-step.js';

const ROOT = join(import.meta.dirname, '../..');
const FOLDERS = ['bin', 'src/control', 'src/daemon', 'src/governor', 'src/ops', 'src/simulate'];
/** Errors whose message an operator reads as it is, and which argument that is. balloonctl adds help to a UsageError. */
const SENTENCE_AT: Readonly<Record<string, number>> = {
  ControlError: 1,
  FoundError: 0,
  LimitError: 0,
  Problem: 1,
  RefusedError: 0,
  SettingsError: 0,
  TraceError: 0,
  UnreachableError: 0,
  VmRefusal: 0,
  WaitTimeoutError: 0,
};
/** What is known at run time only, and was a sentence already. */
const PASSED_ON = new Set([
  ...['{error.message}', '{detail}', '{text.trim()}', '{this.#failed}'],
  // Tried in daemon/verdict.test.ts, below, and in bin/balloond.test.ts.
  ...[
    '{printable(vm.verdict)}',
    '{hint}',
    '{REMEDIES[code]}',
    // Tried in control/http-matrix.test.ts and control/server.test.ts.
    ...['{fault}', '{choice(name, Object.keys(known))}'],
  ],
]);

/** What parameters say, by their names. */
type Scope = ReadonlyMap<string, readonly string[]>;

function nodes(node: ts.Node): ts.Node[] {
  const all = [node];
  ts.forEachChild(node, function visit(child): void {
    all.push(child);
    ts.forEachChild(child, visit);
  });
  return all;
}

/** All that an expression may say; what is known at run time only stands in braces. */
function sentences(expression: ts.Expression, file: ts.SourceFile, scope: Scope = new Map()): string[] {
  const said = (one: ts.Expression): string[] => sentences(one, file, scope);
  if (ts.isStringLiteralLike(expression)) return [expression.text];
  if (ts.isConditionalExpression(expression))
    return [expression.whenTrue, expression.whenFalse].flatMap(said);
  if (ts.isBinaryExpression(expression)) return [expression.left, expression.right].flatMap(said);
  if (ts.isTemplateExpression(expression)) {
    return expression.templateSpans.reduce(
      (before, { expression: value, literal }) =>
        before.flatMap((start) => said(value).map((word) => start + word + literal.text)),
      [expression.head.text],
    );
  }
  const text = expression.getText();
  const known = scope.get(text);
  if (known !== undefined) return [...known];
  if (ts.isCallExpression(expression)) {
    const name = expression.expression.getText().replace('this.', '');
    const called = nodes(file)
      .filter((node) => ts.isFunctionDeclaration(node) || ts.isMethodDeclaration(node))
      .find((node) => node.name?.getText() === name);
    const own = called?.parameters.flatMap(({ name: parameter }, at) => {
      const argument = expression.arguments[at];
      return argument === undefined ? [] : ([[parameter.getText(), said(argument)]] as const);
    });
    const returned = (called === undefined ? [] : nodes(called))
      .filter(ts.isReturnStatement)
      .flatMap((one) => one.expression ?? []);
    if (own !== undefined && called?.type?.getText() === 'string' && name !== 'startupFailure') {
      return returned.flatMap((one) => sentences(one, file, new Map(own)));
    }
  }
  // A word or a sentence that was made before, by the name of a constant.
  if (ts.isIdentifier(expression)) {
    const made = nodes(file)
      .filter(ts.isVariableDeclaration)
      .filter(({ name }) => name.getText() === text)
      .flatMap(({ initializer }) => initializer ?? [])
      .filter(
        (one) =>
          ts.isStringLiteralLike(one) || ts.isTemplateExpression(one) || ts.isConditionalExpression(one),
      );
    if (made.length === 1) return made.flatMap(said);
  }
  return [/^(error\.)?(line|column)$/.test(text) ? '1' : `{${text}}`];
}

const files = FOLDERS.flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(ROOT, folder, name)),
)
  .concat(join(ROOT, 'src/main.ts'))
  .map((path) => ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.ES2023, true));

void t.test('each names the next step', (t) => {
  let found = 0;
  for (const file of files) {
    for (const made of nodes(file).filter(ts.isNewExpression)) {
      const at = SENTENCE_AT[made.expression.getText()];
      const argument = at === undefined ? undefined : made.arguments?.[at];
      if (argument === undefined) continue;
      const { line } = file.getLineAndCharacterOfPosition(made.getStart());
      for (const sentence of sentences(argument, file)) {
        found++;
        const passed = [...PASSED_ON].some((end) => sentence.endsWith(end));
        if (!passed) t.match(sentence, NEXT_STEP, `${relative(ROOT, file.fileName)}:${line + 1}`);
      }
    }
  }
  t.ok(found > 60, `${found} sentences`);
  t.end();
});

void t.test('so does what is added to the reason of a system call', (t) => {
  const tables = files.flatMap(nodes).filter(ts.isVariableDeclaration);
  const remedies = tables
    .filter(({ name }) => name.getText() === 'REMEDIES')
    .flatMap(({ initializer }) =>
      nodes(initializer ?? ts.factory.createNull()).filter(ts.isStringLiteralLike),
    );
  t.ok(remedies.length > 8);
  for (const { text } of remedies) t.match(`reason: ${text}`, NEXT_STEP);
  t.end();
});

void t.test('and what is said of a request that cannot be read', (t) => {
  const hints = Object.values(OPERATIONS).flatMap((operation) =>
    'body' in operation ? [operation.body.hint] : [],
  );
  t.ok(hints.length > 1);
  for (const hint of hints) t.match(`reason: ${hint}`, NEXT_STEP);
  t.end();
});
