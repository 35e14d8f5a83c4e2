/** What the kernel shows of this process, and other processes to try things in. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

/** How many file descriptors are open. */
export function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

export function isCloseOnExec(fd: number): boolean {
  return (openFlags(fd) & O_CLOEXEC) !== 0;
}

export function isNonBlocking(fd: number): boolean {
  return (openFlags(fd) & O_NONBLOCK) !== 0;
}

function openFlags(fd: number): number {
  const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
  if (flags === undefined) throw new Error(`fd ${fd} has no flags`);
  return parseInt(flags, 8);
}

export interface Outcome {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** An ES module that begins with the imports of `modules`, names out of files in src/os. */
export function script(modules: Record<string, string>, body: string): string {
  const imports = Object.entries(modules).map(([file, names]) => {
    const url = new URL(`../../src/os/${file}.js`, import.meta.url).href;
    return `import { ${names} } from ${JSON.stringify(url)};`;
  });
  return [...imports, body].join('\n');
}

/** Runs a module in a process of its own; `prefix` is a command that runs the rest of its arguments. */
export function runNode(code: string, flags: string[] = [], prefix: string[] = []): Outcome {
  const [command, ...rest] = [...prefix, process.execPath, ...flags, '--input-type=module', '-e', code];
  const { status, signal, stdout, stderr } = spawnSync(command, rest, {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
    timeout: 60_000,
  });
  return { status, signal, stdout: stdout.trim(), stderr };
}
