// The recording of the policy: bounded, whole lines, and a disk that is full is said and waited for, never thrown.
import { execFile, execFileSync } from 'node:child_process';
import { readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import type { TraceLine } from '../../protocol/policy-trace.js';
import { PolicyRecorder } from '../../src/governor/recorder.js';
import { parseTrace } from '../../src/simulate/trace.js';

const run = promisify(execFile);
const RECORDER = join(import.meta.dirname, '../../src/governor/recorder.js');

const line = (t: number): TraceLine => ({ version: 2, t, totalBytes: 1000, availableBytes: 500, vms: [] });

void t.test('it takes up no more than it may, and keeps the newest', async (t) => {
  const path = join(t.testdir(), 'trace.ndjson');
  const maxBytes = 4000;
  const recorder = new PolicyRecorder(path, { maxBytes, failed: (why) => t.fail(why) });
  for (let n = 0; n < 1000; n++) recorder.write(line(n));
  await recorder.close();
  const [old, now] = [`${path}.1`, path].map((file) => statSync(file).size);
  t.ok((old ?? 0) + (now ?? 0) <= maxBytes, `${old} + ${now} bytes`);
  const kept = parseTrace(readFileSync(`${path}.1`, 'utf8') + readFileSync(path, 'utf8'));
  t.equal(kept.at(-1)?.t, 999);
  t.ok(kept.length > 20, `${kept.length} lines`);
  t.same(
    kept.map(({ t }) => t),
    kept.map((_, n) => 1000 - kept.length + n),
    'in order, none missing',
  );
  const next = new PolicyRecorder(path, { maxBytes, failed: (why) => t.fail(why) });
  next.write(line(1000));
  await next.close();
  t.equal(parseTrace(readFileSync(path, 'utf8')).at(-1)?.t, 1000, 'and a daemon that starts goes on');
});

void t.test('what is no plain file is left alone', async (t) => {
  const folder = t.testdir();
  writeFileSync(join(folder, 'precious'), '');
  symlinkSync(join(folder, 'precious'), join(folder, 'link'));
  execFileSync('mkfifo', [join(folder, 'fifo')]);
  for (const path of [join(folder, 'link'), join(folder, 'fifo'), folder, '/dev/full']) {
    const reasons: string[] = [];
    const recorder = new PolicyRecorder(path, { maxBytes: 4000, failed: (why) => reasons.push(why) });
    recorder.write(line(1));
    await recorder.close();
    t.equal(reasons.length, 1, path);
  }
  t.equal(statSync(join(folder, 'precious')).size, 0);
});

/** On a disk of 16 KiB: fills it, says how it failed, then makes room and goes on. */
const ON_A_SMALL_DISK = `
import { PolicyRecorder } from '${RECORDER}';
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
const [, folder] = process.argv;
let failures = 0;
const failed = () => failures++;
const recorder = new PolicyRecorder(folder + '/trace', { maxBytes: 2 ** 30, failed, retryMs: 50 });
const write = (t) => recorder.write({ t, totalBytes: 1000, availableBytes: 500, vms: [] });
writeFileSync(folder + '/other', Buffer.alloc(8192));
let n = 0;
while (failures === 0) { write(n++); await sleep(0); }
const ends = readFileSync(folder + '/trace', 'utf8').endsWith('}\\n');
unlinkSync(folder + '/other');
await sleep(100);
for (let more = 0; more < 10; more++) write(n++);
await recorder.close();
const lines = readFileSync(folder + '/trace', 'utf8').trim().split('\\n').map((text) => JSON.parse(text).t);
console.log(JSON.stringify({ ends, failures, last: lines.at(-1) === n - 1, lines: lines.length }));
`;

void t.test('a full disk is said once, cuts no line, and is no end', async (t) => {
  const folder = t.testdir();
  const script = 'mount -t tmpfs -o size=16k tmpfs "$1" && exec "$2" --input-type=module --eval "$3" "$1"';
  const { stdout } = await run('unshare', [
    ...['--mount', 'sh', '-ec', script, 'sh', folder, process.execPath, ON_A_SMALL_DISK],
  ]);
  const { ends, failures, last, lines } = JSON.parse(stdout) as Record<string, unknown>;
  t.same({ ends, failures, last }, { ends: true, failures: 1, last: true });
  t.ok(Number(lines) > 50, `${String(lines)} lines`);
});
