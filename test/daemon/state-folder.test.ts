// A state directory that takes no orders, or holds none that can be read, on real mounts: an operator is told once with the
// next step, VMs are served, and the keeper has the orders meanwhile.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { DaemonView } from '../../protocol/control/schema.js';
import { ControlClient } from '../../src/control/client.js';
import { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { temporaryFolder } from '../support/fleet.js';
import { Frontend } from '../support/frontend.js';
import { ANY_VMM } from '../support/vmm-orders.js';

/** Gives the daemon a mount of its own at its state directory. */
const mounted = (options: string): string[] => [
  'unshare',
  '--mount',
  'sh',
  '-c',
  `mount -t tmpfs -o ${options} state "$STATE_DIRECTORY" && exec "$@"`,
  'sh',
];

interface Place {
  readonly folder: string;
  /** Runs a command as the daemon sees its files. */
  readonly inside: (...command: string[]) => string;
}

interface Trouble {
  readonly within?: readonly string[];
  /** Before the daemon starts. */
  readonly before?: (folder: string) => void;
  /** While the daemon runs. */
  readonly breaks?: (place: Place) => void;
  readonly mends?: (place: Place) => void;
  readonly event: 'orders-not-kept' | 'orders-set-aside';
  /** What is wrong, and what to do next. */
  readonly says: RegExp;
  /** Whether the next daemon finds the same trouble. */
  readonly lasts: boolean;
  /** The copy that could not be read. */
  readonly aside?: string;
}

/** A finding of `balloonctl doctor`. */
interface Found {
  readonly check: string;
  readonly level: string;
}

/** Only root makes mounts. */
const AS_ROOT = { skip: process.getuid?.() === 0 ? false : 'needs root' };
const NEWER = '{"version":2,"revision":9,"vms":{}}';
const remount = (options: string) => (place: Place) =>
  void place.inside('mount', '-o', `remount,${options}`, place.folder);

const TROUBLES: Readonly<Record<string, Trouble>> = {
  'read-only': {
    within: mounted('size=1m'),
    breaks: remount('ro'),
    mends: remount('rw'),
    event: 'orders-not-kept',
    lasts: true,
    says: /not on disk and end with the keeper \(.*: EROFS\): let the daemon write to .*, and the daemon writes the orders within a minute, or with the next order$/,
  },
  full: {
    // The file from before fills it.
    within: mounted('size=4k'),
    mends: remount('size=1m'),
    event: 'orders-not-kept',
    lasts: true,
    says: /\(.*: ENOSPC\): move something else off its file system, and the daemon writes the orders within a minute, or with the next order$/,
  },
  removed: {
    breaks: ({ folder }) => rmSync(folder, { recursive: true }),
    mends: ({ folder }) => mkdirSync(folder),
    event: 'orders-not-kept',
    lasts: true,
    says: /\(.*: ENOENT\): create the state directory again, and the daemon writes the orders within a minute, or with the next order$/,
  },
  'of a newer version': {
    before: (folder) => writeFileSync(join(folder, 'orders.json'), NEWER),
    event: 'orders-set-aside',
    lasts: false,
    says: /orders\.json\.set-aside, because it is of version 2, and this balloond knows 1: start the newer balloond again, .*; run `mv (.*orders\.json)\.set-aside \1` just before/,
    aside: NEWER,
  },
  rubbish: {
    before: (folder) => writeFileSync(join(folder, 'orders.json'), '\0rubbish'),
    event: 'orders-set-aside',
    lasts: false,
    says: /orders\.json\.set-aside, because it is damaged: order again what `balloonctl show` no longer lists$/,
    aside: '\0rubbish',
  },
  'a folder in place of the file': {
    before: (folder) => mkdirSync(join(folder, 'orders.json')),
    event: 'orders-set-aside',
    lasts: false,
    says: /orders\.json\.set-aside, because it cannot be read \(EISDIR\): order again/,
  },
  'a pipe in place of the file': {
    before: (folder) => void execFileSync('mkfifo', [join(folder, 'orders.json')]),
    event: 'orders-set-aside',
    lasts: false,
    says: /orders\.json\.set-aside, because it cannot be read \(ENXIO\): order again/,
  },
  'rubbish that cannot be moved away': {
    within: mounted('size=1m').map((part) =>
      part.replace(
        '&&',
        '&& echo rubbish >"$STATE_DIRECTORY/orders.json" && mount -o remount,ro "$STATE_DIRECTORY" &&',
      ),
    ),
    event: 'orders-set-aside',
    lasts: true,
    says: /orders\.json cannot be moved away \(EROFS\) and stays as it is, because it is damaged: .*; orders are not on disk until the file is moved away and the daemon restarted$/,
  },
};

for (const [what, trouble] of Object.entries(TROUBLES)) {
  void t.test(`a state directory that is ${what}`, AS_ROOT, async (t) => {
    const folder = join(temporaryFolder(t), 'state');
    mkdirSync(folder);
    trouble.before?.(folder);
    const daemon = await DaemonProcess.start({
      supervise: true,
      state: folder,
      config: '[[socket]]\npath = "{folder}/vm.sock"\nname = "web"\n',
      ...(trouble.within !== undefined && { within: trouble.within }),
    });
    t.teardown(() => daemon.stop());
    const inside = (...command: string[]): string =>
      execFileSync('nsenter', ['--mount', '--target', `${daemon.pid}`, ...command], { encoding: 'utf8' });
    const place: Place = { folder, inside };
    const vm = new Frontend({ socket: join(daemon.folder, 'vm.sock'), order: ANY_VMM });
    await vm.connect();
    t.teardown(() => vm.close());
    const control = new ControlClient(daemon.controlPath);
    const said = (from: number): string[] =>
      daemon.log
        .slice(from)
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as { event: string; message: string })
        .filter(({ event }) => event === 'orders-not-kept' || event === 'orders-set-aside')
        .map(({ event, message }) => `${event}: ${message}`);

    trouble.breaks?.(place);
    for (const reason of ['one', 'two', 'three']) await control.inhibit('web', reason);
    await control.changePolicy({ paused: true });
    // The log comes by a pipe of its own.
    await eventually(
      () => said(0).length > 0,
      () => 'it is said',
    );
    const lines = said(0);
    t.equal(lines.length, 1, `once: ${lines.join('\n')}`);
    t.match(lines[0], new RegExp(`^${trouble.event}: `));
    t.match(lines[0], trouble.says);
    const before = await control.show('web');
    t.match(
      before,
      { inhibited: 'three', orders: [{ by: 'operator' }, { order: 'policy' }] },
      'it is served',
    );

    const problem = async (): Promise<string | undefined> => {
      const { problems = [] }: Partial<DaemonView> = await control.daemon();
      return problems.find(({ part }) => part === 'orders')?.text;
    };
    const found = await problem();
    t.equal(found !== undefined, trouble.lasts, 'the daemon says so for as long as it lasts');
    t.equal((await daemon.ctl('list')).stdout.includes(`${found}`), trouble.lasts, 'list too');
    const findings = JSON.parse((await daemon.ctl('doctor', '--json')).stdout) as Found[];
    const ofOrders = findings.find(({ check }) => check === 'orders');
    t.equal(ofOrders?.level, trouble.lasts ? 'mend' : undefined, 'doctor too');

    const from = daemon.log.length;
    await daemon.crash();
    t.same((await control.show('web')).orders, before.orders, 'the keeper had the orders');
    await control.inhibit('web', 'four');
    t.equal(said(from).length, trouble.lasts ? 1 : 0, said(from).join('\n'));

    if (trouble.aside !== undefined)
      t.equal(readFileSync(join(folder, 'orders.json.set-aside'), 'utf8'), trouble.aside, 'nothing is lost');
    if (trouble.mends === undefined && trouble.before === undefined) return;
    trouble.mends?.(place);
    await control.inhibit('web', 'five');
    const onDisk = JSON.parse(inside('cat', join(folder, 'orders.json'))) as object;
    t.match(onDisk, { vms: { web: { inhibit: { reason: 'five' } } }, paused: {} }, 'it works again');
    t.equal(await problem(), undefined, 'and is no problem any more');
    if (trouble.within === undefined) t.notOk(readdirSync(folder).includes('orders.json.new'));
  });
}
