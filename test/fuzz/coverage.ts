// Lines of the message and ring code that the fuzzers reach, file by file: by Node's own coverage data.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FUZZERS } from './fuzzers.js';
import { keptSeeds } from './seeds.js';

const ROOT = join(import.meta.dirname, '../../..');
const FOLDERS = ['src/vhost-user', 'src/virtqueue', 'protocol/vhost-user', 'protocol/virtio'];
const GOAL_PERCENT = 95;
const CASES: Readonly<Record<string, number>> = { session: 600, ring: 400, state: 600 };

interface Range {
  startOffset: number;
  endOffset: number;
  count: number;
}
interface Report {
  result: { url: string; functions: { ranges: Range[] }[] }[];
}

/** Which characters of a file ran: inner ranges come after the outer ones they correct. */
function reached(text: string, report: Report, path: string): boolean[] {
  const ran = Array.from({ length: text.length }, () => false);
  for (const { url, functions } of report.result) {
    if (url !== `file://${path}`) continue;
    for (const { ranges } of functions) {
      for (const { startOffset, endOffset, count } of ranges) ran.fill(count > 0, startOffset, endOffset);
    }
  }
  return ran;
}

/** What indexes of typed arrays fall back to that are in bounds: the compiler asks for it, and it is never needed. */
const FALLBACK = /^[?]{2} 0$/;

/** By line: whether it ran, or null where there is nothing to run. */
function lines(path: string, reports: readonly Report[]): (boolean | null)[] {
  const text = readFileSync(path, 'utf8');
  const ran = Array.from({ length: text.length }, () => false);
  for (const report of reports) reached(text, report, path).forEach((hit, at) => (ran[at] ||= hit));
  let at = 0;
  let comment = false;
  return text.split('\n').map((line) => {
    const start = at + line.length - line.trimStart().length;
    at += line.length + 1;
    const code = line.trim();
    comment ||= code.startsWith('/*');
    const silent = comment || code === '' || code.startsWith('//') || /^[)}\];,]*$/.test(code);
    if (code.endsWith('*/')) comment = false;
    if (silent) return null;
    const missed = Array.from({ length: code.length }, (_, n) =>
      ran[start + n] === true ? '\n' : code.charAt(n),
    ).join('');
    return missed.split('\n').every((part) => part === '' || FALLBACK.test(part.trim()));
  });
}

const folder = mkdtempSync(join(tmpdir(), 'fuzz-coverage-'));
try {
  for (const name of Object.keys(FUZZERS)) {
    const runs = [...keptSeeds(name).map((seed) => [seed, 1]), [1, CASES[name] ?? 200]];
    for (const [seed, cases] of runs) {
      const args = [join(import.meta.dirname, 'run.js'), '--only', name];
      spawnSync(process.execPath, [...args, '--seed', String(seed), '--cases', String(cases)], {
        stdio: ['ignore', 'ignore', 'inherit'],
        env: { ...process.env, NODE_V8_COVERAGE: folder },
      });
    }
  }
  const reports = readdirSync(folder).map(
    (name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Report,
  );
  let [all, hit] = [0, 0];
  for (const part of FOLDERS) {
    for (const name of readdirSync(join(ROOT, 'out', part)).filter((name) => name.endsWith('.js'))) {
      const path = join(ROOT, 'out', part, name);
      const found = lines(path, reports);
      const missed = found.flatMap((line, n) => (line === false ? [n + 1] : []));
      const count = found.filter((line) => line !== null).length;
      all += count;
      hit += count - missed.length;
      const percent = count === 0 ? 100 : (100 * (count - missed.length)) / count;
      const where = missed.length === 0 ? '' : `  not: ${missed.join(' ')}`;
      console.log(`${percent.toFixed(1).padStart(6)} %  out/${part}/${name}${where}`);
    }
  }
  const percent = (100 * hit) / all;
  console.log(`${percent.toFixed(1).padStart(6)} %  of ${all} lines`);
  process.exitCode = percent >= GOAL_PERCENT ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true });
}
