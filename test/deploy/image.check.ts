// The image: what the Dockerfile says is done in a Debian root, and the outcome runs as Docker would run it and as the
// DaemonSet does. Takes minutes and needs root, so it is run by name: npm test -- out/test/deploy/image.check.js
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfigMap } from 'kubernetes-types/core/v1.js';
import type { DaemonSet } from 'kubernetes-types/apps/v1.js';
import t, { type Test } from 'tap';
import type { VmView } from '../../protocol/control/schema.js';
import { readDockerfile } from '../support/dockerfile.js';
import { buildImage, execIn, runImage } from '../support/image.js';
import { readManifest, ROOT } from '../support/kubernetes.js';

const MIB = 2 ** 20;
const TIMEOUT_MS = 30_000;
/** A user that is nobody else's. */
const VMM_UID = 64_123;

const folder = mkdtempSync('/tmp/balloond-image-');
chmodSync(folder, 0o755);
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const base = execFileSync('sh', [join(ROOT, 'scripts/image-lab')], { encoding: 'utf8' }).trim();
const stages = readDockerfile(join(ROOT, 'Dockerfile'));
const root = buildImage(stages, base, folder);
const image = stages.at(-1);
if (image === undefined) throw new Error('the Dockerfile has no stage');

class Container {
  readonly #child: ChildProcess;
  readonly #as: readonly string[];
  log = '';

  constructor(child: ChildProcess, as: readonly string[]) {
    this.#child = child;
    this.#as = as;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.log += text));
  }

  /** Of the daemons, in order; the first process of the container is their keeper. */
  get daemons(): number[] {
    return [...this.log.matchAll(/"event":"daemon-started","pid":(\d+)/g)].map(([, pid]) => Number(pid));
  }

  async started(daemons: number): Promise<void> {
    await until(() => this.daemons.length >= daemons || this.#child.exitCode !== null);
    if (this.daemons.length < daemons) throw new Error(`no daemon number ${daemons}: ${this.log}`);
  }

  exec(...command: string[]): string {
    return execIn(this.#child.pid ?? 0, this.#as, command);
  }

  list(): VmView[] {
    return JSON.parse(this.exec('balloonctl', '--json', 'list')) as VmView[];
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.kill();
    await once(this.#child, 'exit');
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + TIMEOUT_MS; !condition(); await sleep(100)) {
    if (performance.now() > end) throw new Error(`never: ${condition.toString()}`);
  }
}

/** A VMM outside the container, of some user, with the socket at this path of the machine. */
function startVmm(
  t: Test,
  socket: string,
  name: string,
  [uid, gid]: [number, number],
  memory = 'shared',
): void {
  const repository = join(folder, 'repository');
  mkdirSync(repository, { recursive: true });
  // Other users may not get at the working tree where it is.
  const script = `mount --bind "$1" "$2"; shift 2; exec setpriv --reuid ${uid} --regid ${gid} --clear-groups "$@"`;
  const vmm = join(repository, 'out/test/support/host-lab/vmm.js');
  const command = [process.execPath, vmm, socket, '-name', `guest=${name}`, memory];
  const child = spawn('unshare', ['--mount', 'sh', '-ec', script, 'sh', ROOT, repository, ...command], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  t.teardown(() => child.kill());
}

/** A VM gives memory up, loses its daemon to SIGKILL, and gives up more. */
async function assertServed(
  t: Test,
  container: Container,
  socket: string,
  user: [number, number],
): Promise<void> {
  startVmm(t, socket, 'web-1', user);
  await until(() => container.list().some(({ state }) => state === 'running'));
  container.exec('balloonctl', 'set', 'web-1', '--balloon', '16M', '--wait');
  t.match(container.list(), [{ name: 'web-1', verdict: null, balloon: { discardedBytesTotal: 16 * MIB } }]);
  process.kill(container.daemons.at(-1) ?? 0, 'SIGKILL');
  await container.started(2);
  container.exec('balloonctl', 'set', 'web-1', '--balloon', '17M', '--wait');
  t.match(container.list(), [{ name: 'web-1', balloon: { actualBytes: 17 * MIB } }]);
}

void t.test('the image has what the daemon needs, and no compiler', (t) => {
  const inside = (path: string): boolean => existsSync(join(root, path));
  t.ok(inside('usr/lib/balloond/out/bin/balloond.js'));
  t.ok(inside('usr/lib/balloond/out/page/page.js'));
  for (const path of ['usr/bin/gcc', 'src', 'usr/lib/balloond/node_modules/typescript'])
    t.notOk(inside(path), path);
  t.end();
});

void t.test('as Docker runs it: not root', async (t) => {
  t.equal(image.user, 'node');
  const as = ['setpriv', '--reuid', image.user, '--regid', image.user, '--clear-groups', '--no-new-privs'];
  const container = new Container(runImage(root, [...image.entrypoint, ...image.cmd], { as }), as);
  t.teardown(() => container.stop());
  await container.started(1);
  container.exec(...image.healthcheck);
  await assertServed(t, container, join(root, 'run/balloond/balloond.sock'), [1000, 1000]);
});

void t.test('as the DaemonSet runs it: root with two capabilities, and nothing to write to', async (t) => {
  const objects = readManifest('deploy/kubernetes/balloond.yaml');
  const pod = (objects.find(({ kind }) => kind === 'DaemonSet') as DaemonSet).spec?.template.spec;
  const spec = pod?.containers.find(({ name }) => name === 'balloond');
  const security = spec?.securityContext;
  t.match(security, {
    readOnlyRootFilesystem: true,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
  });
  const uid = security?.runAsUser ?? -1;
  const gid = security?.runAsGroup ?? -1;
  const capabilities = security?.capabilities?.add?.map((name) => `+${name.toLowerCase()}`) ?? [];
  const bounds = ['-all', ...capabilities].join(',');
  const as = [
    ...['setpriv', '--reuid', String(uid), '--regid', String(gid), '--clear-groups', '--no-new-privs'],
    ...['--bounding-set', bounds, '--inh-caps=-all'],
  ];
  const mounts = new Map(spec?.volumeMounts?.map(({ name, mountPath }) => [name, mountPath]));
  const node = join(folder, 'node');
  for (const path of [node, ...[...mounts.values()].map((each) => join(root, each))]) {
    mkdirSync(path, { recursive: true, mode: 0o755 });
  }
  const data = (objects.find(({ kind }) => kind === 'ConfigMap') as ConfigMap).data;
  writeFileSync(
    join(root, mounts.get('config') ?? '', 'balloond.toml'),
    data?.['balloond.toml']?.replace('0.0.0.0:9797', '127.0.0.1:0') ?? '',
  );
  const setUp = `mount --rbind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount --bind '${node}' "$root${mounts.get('vmm')}"
    for folder in ${mounts.get('run')} ${mounts.get('tmp')}; do mount -t tmpfs -o mode=777 tmpfs "$root$folder"; done`;
  const command = [...image.entrypoint, ...(spec?.args ?? [])];
  const container = new Container(runImage(root, command, { as, setUp }), as);
  t.teardown(() => container.stop());
  await container.started(1);
  container.exec(...(spec?.readinessProbe?.exec?.command ?? []));
  const port = /"event":"listening","host":"127\.0\.0\.1","port":(\d+)/.exec(container.log)?.[1];
  const page = await fetch(`http://127.0.0.1:${port}/page.js`);
  t.equal(page.status, 200, 'the page is there');
  t.throws(() => container.exec('touch', '/x'), /Read-only/);

  const socket = join(node, 'balloond.sock');
  await assertServed(t, container, socket, [VMM_UID, gid]);
  startVmm(t, socket, 'private', [VMM_UID, gid], 'private');
  await until(() => container.list().some(({ verdict }) => verdict?.includes('share=on') === true));
  t.pass('mappings of processes of other users are seen');
  const events = container.exec('balloonctl', '--json', 'events');
  t.match(events, 'vm-connected');
  t.notMatch(events, 'pin-unknown', 'so are their open files');
});
