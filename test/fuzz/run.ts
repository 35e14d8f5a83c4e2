// Fuzzers, each in a process of its own that may crash or hang: npm run fuzz -- --help
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createMemfd } from '../../src/os/memfd.js';
import { FUZZERS } from './fuzzers.js';
import { buildNative } from './native-fuzzer.js';

const USAGE = `usage: npm run fuzz -- [--seconds N] [--seed S] [--cases N] [--only NAME[,NAME]] [--coverage]
  fuzzers: ${[...Object.keys(FUZZERS), 'native'].join(', ')}
  Case n of a fuzzer has seed S + n; a finding says how to see it again. --coverage: of messages and rings, by
  the seeds that are kept and the fuzzers.`;
/** A case that takes longer hangs. */
const HANG_MS = 60_000;
const WATCH_MS = 200;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    cases: { type: 'string', default: '0' },
    only: { type: 'string', default: [...Object.keys(FUZZERS), 'native'].join(',') },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}

interface Outcome {
  cases: number;
  /** Of the last case. */
  seed: number;
  finding: string | null;
}

/** Where each thread of a process is: its name and state, what it waits for in the kernel, and the call it made. */
function threadsOf(pid: number): string {
  const folder = `/proc/${pid}/task`;
  const facts = (thread: string): string =>
    ['comm', 'stat', 'wchan', 'syscall', 'schedstat']
      .map((name) => readFileSync(`${folder}/${thread}/${name}`, 'latin1').trim())
      .join(' | ');
  try {
    return readdirSync(folder).map(facts).join('\n');
  } catch (error) {
    return String(error);
  }
}

async function fuzz(name: string, seed: number): Promise<Outcome> {
  const progressFd = createMemfd('progress', 8);
  const args = [String(seed), values.seconds, values.cases];
  const command =
    name === 'native'
      ? [buildNative(), ...args]
      : [process.execPath, join(import.meta.dirname, 'work.js'), name, ...args];
  const [program = '', ...rest] = command;
  const child = spawn(program, rest, { stdio: ['ignore', 'inherit', 'inherit', 'ignore', progressFd] });
  const progress = new Uint32Array(2);
  let movedAt = performance.now();
  let finding: string | null = null;
  let lookedAt = movedAt;
  const look = (): void => {
    const before = progress[1];
    readSync(progressFd, progress, 0, 8, 0);
    if (progress[1] !== before) movedAt = performance.now();
  };
  while (child.exitCode === null && child.signalCode === null) {
    await sleep(WATCH_MS);
    look();
    const now = performance.now();
    // All were stopped, not only the one that is watched.
    if (now - lookedAt > HANG_MS / 10) movedAt = now;
    lookedAt = now;
    if (now - movedAt < HANG_MS) continue;
    finding = `hangs for ${HANG_MS / 1000} s:\n${threadsOf(child.pid ?? 0)}`;
    child.kill('SIGKILL');
    movedAt = Infinity;
  }
  look();
  if (child.exitCode !== 0) finding ??= `ended with ${child.exitCode ?? child.signalCode ?? 'nothing'}`;
  return { cases: progress[1] ?? 0, seed: progress[0] ?? 0, finding };
}

const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31)) >>> 0;
let findings = 0;
for (const name of values.only.split(',')) {
  if (name !== 'native' && !(name in FUZZERS)) {
    console.error(USAGE);
    process.exit(2);
  }
  console.log(`${name}: from seed ${seed}`);
  const { cases, seed: last, finding } = await fuzz(name, seed);
  if (finding === null) {
    console.log(`${name}: ${cases} cases, no finding`);
    continue;
  }
  findings++;
  console.log(
    `${name}: ${finding}; to see it again: npm run fuzz -- --only ${name} --seed ${last} --cases 1`,
  );
}
process.exitCode = findings === 0 ? 0 : 1;
