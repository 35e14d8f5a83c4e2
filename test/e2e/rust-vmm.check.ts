// rust-vmm's own frontend, as Debian packages it (scripts/rust-vmm builds a VMM of it), in cloud-hypervisor's order against the real
// daemon: what it says of its memory and of its rings is compared with what the daemon shows. Needs root once, and half a minute, so it is
// run by name: npm test -- out/test/e2e/rust-vmm.check.js
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { startDaemon } from '../support/e2e.js';
import { PAGE_BYTES } from '../support/guest-ram.js';

t.setTimeout(0);

const BUILD = join(import.meta.dirname, '../../../scripts/rust-vmm');
const NAME = 'ch';
/** The socket has the name: this VMM has none, and its orders are to outlive its connections. */
const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"
name = "${NAME}"
`;
const PAGES = 1024;
const FIRST = 4096;

const { status, stdout, stderr } = spawnSync('sh', [BUILD], { encoding: 'utf8' });
const skip = status === 3 && 'Debian has no librust-vhost-dev any more';
if (status !== 0 && status !== 3) throw new Error(stderr);

void t.test("a VMM of rust-vmm's own library", { skip }, async (t) => {
  const daemon = await startDaemon(t, { config: CONFIG, supervise: true });
  const vmm = spawn(stdout.trim(), [daemon.socketPath], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => vmm.kill('SIGKILL'));
  const lines = createInterface({ input: vmm.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<string> => String((await lines.next()).value);
  const does = async (line: string): Promise<string> => {
    vmm.stdin.write(`${line}\n`);
    return answer();
  };
  const done = async (...all: readonly string[]): Promise<void> => {
    for (const line of all) t.equal(await does(line), 'done', line);
  };
  t.equal(await answer(), 'booted');
  const ready = await daemon.until(NAME, ({ state }) => state === 'running', 'the driver runs');
  // It lets no bit of the kind of device through.
  t.match(ready, { verdict: null, balloon: { actualBytes: 0 }, stats: null });

  await done(`fill ${FIRST} ${PAGES}`);
  const full = Number(await does('allocated'));
  await daemon.ok('set', NAME, '--balloon', `${PAGES * PAGE_BYTES}`);
  t.equal(await does('target'), `${PAGES}`);
  await done(`inflate ${FIRST} ${PAGES}`, `actual ${PAGES}`);
  const given = await daemon.until(NAME, ({ balloon }) => balloon.pendingBytes === 0, 'all is discarded');
  t.equal(given.balloon.actualBytes, PAGES * PAGE_BYTES);
  t.equal(
    full - Number(await does('allocated')),
    PAGES * PAGE_BYTES,
    'the file of the memory is smaller by as much',
  );

  await done('pause');
  await daemon.until(NAME, ({ state }) => state === 'stopped', 'it is paused');
  await done('resume');
  await daemon.until(NAME, ({ state }) => state === 'running', 'it goes on');

  await daemon.ok('set', NAME, '--balloon', `${(PAGES / 2) * PAGE_BYTES}`);
  t.equal(await does('target'), `${PAGES / 2}`);
  await done(`deflate ${FIRST} ${PAGES / 2}`, `actual ${PAGES / 2}`, `fill ${FIRST} ${PAGES / 2}`);
  t.match(await daemon.show(NAME), { balloon: { actualBytes: (PAGES / 2) * PAGE_BYTES }, verdict: null });

  // The answer is where each ring stands: one buffer was used of each.
  t.equal(await does('bases'), '[1, 1]');
  await daemon.until(NAME, ({ state }) => state === 'stopped', 'it is stopped');
  await done('reboot');
  const again = await daemon.until(NAME, ({ state }) => state === 'running', 'it runs after a reboot');
  t.match(again, { balloon: { targetBytes: (PAGES / 2) * PAGE_BYTES, actualBytes: 0 } }, 'the target stays');
  t.equal((await daemon.list()).length, 1, 'one VM by the same name');
  t.notMatch(daemon.log, /"level":[45]0(?!.*(not-held|cgroup))/, 'no warning');

  // Until 0.15 it wants the ack of any request here, and since 0.16 the reply of the specification, which balloond gives.
  t.equal(await does('log'), 'error: vhost-user: backend internal error');
  t.match(await daemon.show(NAME), { verdict: null });
});
