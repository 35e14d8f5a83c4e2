// Does what a Dockerfile says in folders that are copies of a Debian root, and runs what comes of it, where no container
// engine is at hand. Needs root.
import { execFileSync, spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './kubernetes.js';
import type { Instruction, Stage } from './dockerfile.js';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** What npm was told on this machine; a build elsewhere is told in its own way. */
const NPM_SETTINGS = ['registry', 'proxy', 'https-proxy', 'noproxy'];
/** As a container sees them. Mounts end with the process. */
const MOUNTS = `root=$1
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for file in resolv.conf hosts; do
  [ ! -e "/etc/$file" ] || { : >>"$root/etc/$file"; mount --bind "/etc/$file" "$root/etc/$file"; }
done
`;

/** Builds the stages below `folder`, each from a copy of `base`; returns the last one's root. */
export function buildImage(stages: readonly Stage[], base: string, folder: string): string {
  const roots = new Map<string, string>();
  let root = '';
  for (const stage of stages) {
    root = join(folder, `stage-${roots.size}`);
    execFileSync('cp', ['-a', base, root]);
    roots.set(stage.name, root);
    let workdir = '/';
    for (const instruction of stage.build) {
      if (instruction.name === 'WORKDIR') {
        workdir = instruction.rest;
        mkdirSync(join(root, workdir), { recursive: true });
      } else if (instruction.name === 'COPY') copy(instruction, root, workdir, roots);
      else runLine(instruction.rest, root, workdir);
    }
  }
  return root;
}

export interface RunOptions {
  /** More of the container's set-up, as shell; `$root` is its root. */
  readonly setUp?: string;
  /** What starts the command inside: which user and privileges it gets. */
  readonly as: readonly string[];
}

/** Runs the command in the root as a container's first process, but among all processes of this machine. */
export function runImage(
  root: string,
  command: readonly string[],
  { setUp = '', as }: RunOptions,
): ChildProcess {
  const script = `${MOUNTS}${setUp}\nshift\nexec chroot "$root" "$@"`;
  const inside = ['env', '-i', `PATH=${PATH}`, ...as, ...command];
  const args = ['--pdeathsig', 'KILL', 'unshare', '--mount', 'sh', '-ec', script, 'sh', root, ...inside];
  return spawn('setpriv', args, { stdio: ['ignore', 'inherit', 'pipe'] });
}

/** Runs the command beside a container's first process, as `docker exec` and probes do; its output, or throws. */
export function execIn(pid: number, as: readonly string[], command: readonly string[]): string {
  const enter = ['--target', String(pid), '--mount', '--root', '--wd'];
  return execFileSync('nsenter', [...enter, 'env', '-i', `PATH=${PATH}`, ...as, ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

function copy(
  { rest }: Instruction,
  root: string,
  workdir: string,
  roots: ReadonlyMap<string, string>,
): void {
  const [from, source, target] = /^(?:--from=(\S+) )?(\S+) (\S+)$/.exec(rest)?.slice(1) ?? [];
  if (source === undefined || target === undefined) throw new Error(`not understood: COPY ${rest}`);
  if (from !== undefined) {
    const to = join(root, target);
    mkdirSync(to, { recursive: true });
    execFileSync('cp', ['-aT', join(roots.get(from) ?? '', source), to]);
    return;
  }
  if (source !== '.') throw new Error(`not understood: COPY ${rest}`);
  copySources(join(root, workdir, target));
}

/** Copies the working tree less what .dockerignore names, which is what comes of building. */
export function copySources(to: string): void {
  mkdirSync(to, { recursive: true });
  const ignored = readFileSync(join(ROOT, '.dockerignore'), 'utf8').trim().split('\n');
  const excludes = ignored.map((pattern) => `--exclude=./${pattern}`);
  execFileSync('sh', [
    '-ec',
    'from=$1; to=$2; shift 2; tar -C "$from" --anchored "$@" -cf - . | tar -C "$to" --no-same-owner -xf -',
    ...['sh', ROOT, to, ...excludes],
  ]);
}

function npmSetting(name: string): string {
  const stdio: StdioOptions = ['ignore', 'pipe', 'ignore'];
  const value = execFileSync('npm', ['config', 'get', name], { encoding: 'utf8', stdio }).trim();
  return value === 'null' ? '' : value;
}

/** What npm has to be told elsewhere, as `NAME=value`; `authorities` is the file of certificates to copy to `cafile`, if any. */
export function npmEnvironment(cafile: string): { env: string[]; authorities: string } {
  const settings = NPM_SETTINGS.map((name) => [name.replaceAll('-', '_'), npmSetting(name)]).filter(
    ([, value]) => value !== '',
  );
  const proxies = Object.entries(process.env).filter(([name]) => /^(https?|no)_proxy$/i.test(name));
  const authorities = npmSetting('cafile');
  if (authorities !== '') settings.push(['cafile', cafile]);
  return {
    env: [
      ...settings.map(([name, value]) => `npm_config_${name}=${value}`),
      ...proxies.map(([name, value]) => `${name}=${value}`),
    ],
    authorities,
  };
}

/** Runs shell in the root, as root and with npm told what it is told on this machine; returns its output, or throws. */
export function runLine(line: string, root: string, workdir: string): string {
  const { env: told, authorities } = npmEnvironment('/mnt/authorities');
  const env = ['env', '-i', `PATH=${PATH}`, 'HOME=/root', 'DEBIAN_FRONTEND=noninteractive', ...told];
  const script = `${MOUNTS}mount -t tmpfs tmpfs "$root/mnt"
    [ -z "$2" ] || cp "$2" "$root/mnt/authorities"
    shift 2\nexec chroot "$root" "$@"`;
  const command = [...env, 'sh', '-ec', `cd ${workdir}\n${line}`];
  return execFileSync('unshare', ['--mount', 'sh', '-ec', script, 'sh', root, authorities, ...command], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
}
