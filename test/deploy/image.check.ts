// The image: what the Dockerfile says is done in a Debian root, and the outcome runs as Docker would run it and as the
// DaemonSet does. Takes minutes and needs root, so it is run by name: npm test -- out/test/deploy/image.check.js
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConfigMap } from 'kubernetes-types/core/v1.js';
import type { DaemonSet } from 'kubernetes-types/apps/v1.js';
import t, { type Test } from 'tap';
import { Container, startVmm } from '../support/container.js';
import { readDockerfile } from '../support/dockerfile.js';
import { buildImage, runImage } from '../support/image.js';
import { readManifest, ROOT } from '../support/kubernetes.js';

t.setTimeout(0);

const MIB = 2 ** 20;
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

/** A VM gives memory up, loses its daemon to SIGKILL, and gives up more. */
async function assertServed(
  t: Test,
  container: Container,
  socket: string,
  user: [number, number],
): Promise<void> {
  startVmm(t, folder, socket, 'web-1', user);
  await container.vm(({ state }) => state === 'running', 'the VM runs');
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
  startVmm(t, folder, socket, 'private', [VMM_UID, gid], 'private');
  await container.vm(({ verdict }) => verdict?.includes('share=on') === true, 'the private VM has a verdict');
  t.pass('mappings of processes of other users are seen');
  const events = container.exec('balloonctl', '--json', 'events');
  t.match(events, 'vm-connected');
  t.notMatch(events, 'pin-unknown', 'so are their open files');
});
