import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import t from 'tap';
import type { PolicyState, VmView } from '../../../protocol/control/schema.js';
import { SORT_KEYS } from '../../../src/control/cli/choices.js';
import { openOutput } from '../../../src/control/cli/output.js';
import { columnsOf } from '../../../src/control/cli/text.js';
import { renderTop, Samples } from '../../../src/control/cli/top-view.js';
import { GIB, serveFleet, vmView } from '../../support/fleet.js';

const output = openOutput({ write: () => true }, {}, false);
const POLICY: PolicyState = {
  ...{ mode: 'observe', paused: false, problem: null, reserveBytes: GIB, bands: [], vms: [] },
  host: { totalBytes: 64 * GIB, availableBytes: 12 * GIB, pressurePercent: 0.5, short: false },
};
const BALLOONCTL = fileURLToPath(new URL('../../../bin/balloonctl.js', import.meta.url));
const ALL = { columns: 80, rows: Infinity };

function sized(name: string, actualBytes: number, change: Partial<VmView> = {}): VmView {
  const vm = vmView(name, change);
  return { ...vm, balloon: { ...vm.balloon, actualBytes } };
}

void t.test('it sorts, sums up, and draws what was', (t) => {
  const samples = new Samples();
  const vms = [sized('a-name-that-is-much-too-long', 3 * GIB), sized('b', 0)];
  for (const bytes of [0, 2 * GIB, 4 * GIB]) samples.add([sized('b', bytes)]);
  samples.add(vms);
  const [host, sum, , ...rows] = renderTop({ vms, policy: POLICY }, samples, 'balloon', ALL, output);
  t.equal(host, 'host: 12 GiB of 64 GiB available, pressure 0.5 %; policy observe');
  t.equal(sum, '2 VMs: RAM 8 GiB, guests have 5 GiB, in balloons 3 GiB');
  t.match(rows, [/^a-name-that-…  running/, /^b .* █▅▁█$/]);
  t.match(renderTop({ vms, policy: POLICY }, samples, 'memory', ALL, output)[3], /^b /);
  for (let n = 0; n < 99; n++) samples.add(vms);
  t.equal(samples.sparkline(vmView('b'), Infinity).length, 60, 'bounded');
  t.match(renderTop({ vms, policy: POLICY }, samples, 'name', { columns: 80, rows: 4 }, output), [
    /^host/,
    /^2 VMs/,
    /^VM/,
    '... and 2 more',
  ]);
  const sick = [sized('sick', 0, { verdict: 'out of puff: set a smaller balloon' })];
  t.match(renderTop({ vms: sick, policy: POLICY }, samples, 'name', ALL, output).slice(3), [
    /^sick +! running/,
    /^! sick: out of puff/,
  ]);
  const cached = vmView('cached', { cache: { ...vmView('cached').balloon, actualBytes: GIB } });
  t.match(renderTop({ vms: [cached], policy: POLICY }, new Samples(), 'name', ALL, output).slice(1), [
    '1 VM: RAM 4 GiB, guests have 3 GiB, in balloons 1 GiB',
    / BALLOON +CACHE +AVAIL /,
    /^cached +running +4 GiB +3 GiB +0 B +1 GiB +3 GiB$/,
  ]);
  t.end();
});

void t.test('no line is wider than the terminal, nor are there more than it has', (t) => {
  const bytes = fc.maxSafeNat();
  const vm = fc
    .record({
      name: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 64 }),
      verdict: fc.option(fc.string({ unit: 'grapheme' })),
      state: fc.constantFrom('connected' as const, 'running' as const, 'stopped' as const),
      ramBytes: bytes,
      actualBytes: bytes,
      available: fc.option(bytes),
      cached: fc.option(bytes),
    })
    .map(({ name, actualBytes, available, cached, ...change }) => {
      const stats = available === null ? null : { ageSeconds: 1, VIRTIO_BALLOON_S_AVAIL: available };
      const cache = cached === null ? null : { ...vmView(name).balloon, actualBytes: cached };
      return sized(name, actualBytes, { ...change, stats, cache });
    });
  const screen = fc.record({
    columns: fc.integer({ min: 1, max: 200 }),
    rows: fc.integer({ min: 1, max: 50 }),
  });
  const looks = fc.array(fc.array(vm, { maxLength: 60 }), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(looks, screen, fc.constantFrom(...SORT_KEYS), (seen, size, sort) => {
      const samples = new Samples();
      for (const vms of seen) samples.add(vms);
      const lines = renderTop({ vms: seen.at(-1) ?? [], policy: POLICY }, samples, sort, size, output);
      t.ok(lines.length <= size.rows);
      for (const line of lines) if (columnsOf(line) > size.columns) t.fail(line);
    }),
    { numRuns: 100 },
  );
  t.end();
});

void t.test(
  'on a terminal it shows, sorts, waits for a daemon that is away, and leaves all as it was',
  async (t) => {
    const { socketPath, close } = await serveFleet(t);
    // A terminal of its own, by script(1) of util-linux.
    const command = `stty cols 70 rows 12; exec "${process.execPath}" "${BALLOONCTL}" top --control "${socketPath}"`;
    const terminal = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null']);
    t.teardown(() => terminal.kill());
    let shown = '';
    terminal.stdout.on('data', (data: Buffer) => (shown += data.toString()));
    const shows = async (words: RegExp): Promise<void> => {
      for (let waited = 0; !words.test(shown); waited += 20) {
        if (waited > 30_000) throw new Error(`never ${String(words)}: ${JSON.stringify(shown.slice(-500))}`);
        await sleep(20);
      }
    };
    await shows(/by name; sort by/);
    terminal.stdin.write('b');
    await shows(/by balloon; sort by/);
    await close();
    await shows(/trying again/);
    terminal.stdin.write('q');
    const [code] = (await once(terminal, 'exit')) as [number];
    t.equal(code, 0);
    t.match(shown, /web1 .*running/);
    t.ok(shown.includes('\x1b[?1049h'));
    t.match(shown, /\x1b\[\?25h\x1b\[\?1049l\s*$/);
    const lines = shown.split(/\r\n|\x1b\[H/).map((line) => line.replaceAll(/\x1b\[[?\d;]*[a-zA-Z]/g, ''));
    t.same(
      lines.filter((line) => columnsOf(line) > 70),
      [],
    );
  },
);
