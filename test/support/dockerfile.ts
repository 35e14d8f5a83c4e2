/** A Dockerfile as far as ours goes: no ARG, no heredocs, commands of the image as JSON. */
import { readFileSync } from 'node:fs';

export interface Instruction {
  /** FROM, RUN, COPY and so on. */
  readonly name: string;
  readonly rest: string;
}

export interface Stage {
  readonly base: string;
  readonly name: string;
  /** What is done in it, in order. */
  readonly build: readonly Instruction[];
  readonly user: string;
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly healthcheck: readonly string[];
}

const METADATA = new Set(['FROM', 'USER', 'ENTRYPOINT', 'CMD', 'HEALTHCHECK']);
const BUILD = new Set(['RUN', 'COPY', 'WORKDIR']);

export function readDockerfile(path: string): Stage[] {
  const text = readFileSync(path, 'utf8')
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, '');
  const stages: Instruction[][] = [];
  for (const line of text.split('\n').filter((each) => each !== '')) {
    const [, name = '', rest = ''] = /^([A-Z]+) +(.*)$/.exec(line) ?? [];
    if (!METADATA.has(name) && !BUILD.has(name)) throw new Error(`${path}: not understood: ${line}`);
    if (name === 'FROM') stages.push([]);
    stages.at(-1)?.push({ name, rest });
  }
  return stages.map((lines) => {
    const last = (name: string): string => lines.findLast((each) => each.name === name)?.rest ?? '';
    const [base = '', name = ''] = last('FROM').split(/ +AS +/);
    return {
      base,
      name,
      build: lines.filter((each) => BUILD.has(each.name)),
      user: last('USER') || 'root',
      entrypoint: words(last('ENTRYPOINT')),
      cmd: words(last('CMD')),
      healthcheck: words(last('HEALTHCHECK').replace(/^.*?CMD /, '')),
    };
  });
}

function words(json: string): string[] {
  return json === '' ? [] : (JSON.parse(json) as string[]);
}
