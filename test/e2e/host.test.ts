// The installed package on a real host: systemd, its journal, users and groups, in one VM. The tests build on each
// other, in the order in which an operator would do things. The VM is emulated: a program of ours takes many seconds
// to start in it, so each is started as seldom as possible.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import type { DaemonEvent, VmView } from '../../protocol/control/schema.js';
import type { Finding } from '../../src/control/cli/finding.js';
import { EVENT_IDS } from '../../protocol/control/event-ids.js';
import { EVENTS } from '../../protocol/control/events.js';
import type { FollowReport } from '../support/host-lab/follow.js';
import type { ForceReport } from '../support/host-lab/force.js';
import { BUILT, HostVm, PATIENCE_SECONDS, ROOT, TESTS, WAIT } from '../support/host-lab/host-vm.js';
import { MIB } from '../support/e2e.js';

/** Everything on disk but the tests' own, what is left in /run, and all accounts. */
const TRACES = `{ find / -xdev -path ${TESTS} -prune -o -print; find /run -name '*balloon*';
  cut -d: -f1 /etc/passwd /etc/group /etc/shadow /etc/gshadow; } | sort`;
const EXPOSURE_MAX = 2.5;
/** What the service manager holds for a daemon without VMs: its events, its configuration, and the orders for VMs. */
const HELD_ALWAYS = 3;
/** And, with metrics on TCP, the hour that the page draws. */
const HELD_WITH_METRICS = HELD_ALWAYS + 1;
const SYS_PROCESS_MADVISE = 440;

const startedMs = Date.now();
const host = await HostVm.boot();
t.teardown(() => host.close());
t.comment(`the host is up after ${Date.now() - startedMs} ms`);

/** Starts a VMM as a service; it is up once its guest's driver runs. Its user is in `groups` only. */
function startVmm(name: string, { groups = 'balloond-vmm', memory = 'shared' } = {}): string {
  return (
    `systemd-run --quiet --unit=${name} --service-type=notify --uid=vmm ` +
    `--property=TimeoutStartSec=${PATIENCE_SECONDS} --property=SupplementaryGroups='${groups}' node ${TESTS}/out/test/support/host-lab/vmm.js ` +
    `/run/balloond/balloond.sock -name guest=${name} ${memory}`
  );
}

/** So that neither systemd nor the watchdog gives up before the test does. */
const PATIENT = '/run/systemd/system/balloond.service.d/patient.conf';
const bePatient = `mkdir -p ${dirname(PATIENT)} && printf '[Service]\nWatchdogSec=${PATIENCE_SECONDS}\nTimeoutStartSec=${PATIENCE_SECONDS}\n' >${PATIENT} &&
  systemctl daemon-reload`;

/** Perl that succeeds when the call is made at all: a filter would answer EPERM before the bad descriptor is seen. */
function syscallExists(number: number): string {
  return `syscall(${number}, -1, 0, 0, 0, 0); exit(!$!{EBADF})`;
}

void t.test('below DESTDIR: complete, and gone when removed', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'balloond-destdir-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const install = (...args: string[]): void => {
    const env = { ...process.env, DESTDIR: folder };
    execFileSync('sh', [join(ROOT, 'scripts/install-system'), ...args], { env });
  };
  install();
  install();
  const printed = execFileSync(join(folder, 'usr/sbin/balloond'), ['--print-capabilities'], {
    encoding: 'utf8',
  });
  const discovery = readFileSync(join(folder, 'usr/share/qemu/vhost-user/50-balloond.json'), 'utf8');
  const { type, binary, tags, description } = JSON.parse(discovery) as Record<string, unknown>;
  t.match(JSON.parse(printed), { type }, 'the discovery file and the program agree');
  t.same([binary, tags, typeof description], ['/usr/sbin/balloond', [], 'string']);
  t.match(execFileSync(join(folder, 'usr/bin/balloonctl'), ['--help'], { encoding: 'utf8' }), 'balloonctl');
  install('--purge');
  t.equal(execFileSync('find', [folder, '!', '-type', 'd'], { encoding: 'utf8' }), '');
  t.end();
});

void t.test('installed and enabled, it says when it is ready', async (t) => {
  await host.ok(`useradd --system vmm && ${TRACES} >/run/before`);
  await host.install();
  await host.ok(`${bePatient}; systemctl enable --now balloond.socket balloond.service`);
  t.equal(await host.service('Type'), 'notify');
  t.equal(await host.service('ActiveState'), 'active');
  const started = await host.json('journalctl --unit=balloond BALLOOND_EVENT=daemon-started --output=json');
  t.match(started, {
    MESSAGE: /^balloond \S+ serves VMs; its control socket is /,
    MESSAGE_ID: EVENT_IDS['daemon-started'],
    PRIORITY: '6',
    SYSLOG_IDENTIFIER: 'balloond',
    BALLOOND_CONTROL: '/run/balloond/control.sock',
    _TRANSPORT: 'journal',
  });
});

void t.test('its exposure is low', async (t) => {
  const report = await host.ok('systemd-analyze security --no-pager balloond.service');
  const exposure = Number(/Overall exposure level for balloond.service: ([\d.]+)/.exec(report)?.[1]);
  t.ok(exposure <= EXPOSURE_MAX, `${exposure}\n${report}`);
});

void t.test('sockets have the documented owners and modes', async (t) => {
  t.same((await host.ok("cd /run/balloond && stat --format='%n %a %U %G' . *")).split('\n'), [
    '. 755 balloond balloond',
    'balloond.sock 660 root balloond-vmm',
    'control.sock 660 balloond balloond',
  ]);
});

void t.test('members of balloond-vmm connect VMMs, others do not', async (t) => {
  const { output } = await host.sh(
    `${startVmm('web')} & ${startVmm('private', { memory: 'private' })} & ` +
      `${startVmm('outsider', { groups: 'balloond' })}; echo outsider: $?; wait`,
  );
  t.match(output, 'outsider: 1');
  t.match(await host.ok('journalctl --unit=outsider --output=cat'), /balloond\.sock: EACCES/);
  const vms = await host.json<VmView[]>('balloonctl --json list');
  t.match(
    vms.sort((a, b) => a.name.localeCompare(b.name)),
    [
      { name: 'private', state: 'connected', verdict: /share=on/ },
      { name: 'web', state: 'running', verdict: null },
    ],
    'names and mappings of processes of another user are seen',
  );
  await host.ok(`balloonctl set web --balloon 16M ${WAIT}`);
  t.match(await host.json('balloonctl --json show web'), { balloon: { discardedBytesTotal: 16 * MIB } });
});

/** Field 19 of /proc/PID/task/TID/stat, counted behind the name in parentheses. */
const NICE_VALUES = `for stat in /proc/$(systemctl show --value --property=MainPID balloond.service)/task/*/stat; do
  sed 's/.*) //' $stat | cut -d ' ' -f 17; done | sort -n | uniq`;

void t.test('threads that discard step behind the event loop, which the sandbox lets them', async (t) => {
  t.equal(await host.ok(NICE_VALUES), '0\n5');
  t.notMatch(await host.ok('journalctl --unit=balloond --output=cat'), /compete with rings/);
});

void t.test('the journal knows of each VM, and what to do', async (t) => {
  const about = (vm: string): Promise<string> =>
    host.ok(`journalctl --unit=balloond BALLOOND_VM=${vm} --output=cat --output-fields=BALLOOND_EVENT`);
  const [web, other] = [await about('web'), await about('private')];
  t.match(web, /target-changed\n(.*\n)*target-reached/);
  t.match(other, 'private-memory');
  t.notMatch(web, 'private-memory');
  const explained = await host.ok('journalctl --catalog --unit=balloond BALLOOND_VM=private -p err');
  t.match(explained.replaceAll(/\s+░*\s*/g, ' '), EVENTS['private-memory'].action.replaceAll('`', ''));
});

void t.test('doctor says what is wrong with a VM, and nothing of one that is well', async (t) => {
  const { output } = await host.sh('balloonctl --json doctor; echo exit $?');
  const [document = '', ...end] = output.trim().split('\n');
  const findings = (JSON.parse(document) as Finding[]).filter(({ level }) => level !== 'ok');
  const of = (subject: string): string[] =>
    findings.filter((one) => one.subject === subject).map(({ check, level }) => `${check} ${level}`);
  t.match(end.join(' '), /to mend: .*exit 1$/);
  t.same(of('private'), ['memory mend']);
  t.same(of('web'), []);
  t.same(of('daemon'), []);
  t.same(
    of('host').filter((one) => !/QEMU|huge pages|discard/.test(one)),
    [],
    'an installed daemon on systemd has what it needs',
  );
});

void t.test('an entry too large for a datagram is in the journal, too', async (t) => {
  await host.ok(`cat >/run/large.mjs <<'END'
import { JournalLog } from '${TESTS}/out/src/ops/journal-log.js';
const log = new JournalLog('info', { warn: (_, said) => console.log(said), info: () => undefined });
log.info({ event: 'listening', vm: 'large' }, 'x'.repeat(500_000));
log.close();
END
    said=$(node /run/large.mjs) && test -z "$said" && journalctl --sync`);
  const found = 'journalctl BALLOOND_VM=large --output=cat';
  t.equal(await host.ok(`${found} | tr -d '\\n' | wc -c`), '500000');
});

void t.test('a journal that is frozen, and one that is stopped, stop no VM', async (t) => {
  const journal = 'systemd-journald.service';
  const units = `systemd-journald.socket systemd-journald-dev-log.socket ${journal}`;
  const pid = await host.service('MainPID');
  await host.ok(`systemctl kill --signal=STOP ${journal} && balloonctl set web --balloon 17M ${WAIT}
    systemctl kill --signal=CONT ${journal}`);
  await host.ok(
    `systemctl stop ${units} && balloonctl set web --balloon 18M ${WAIT}; systemctl start ${units}`,
  );
  await host.ok(`balloonctl set web --balloon 16M ${WAIT} && journalctl --sync`);
  const said = 'journalctl --unit=balloond BALLOOND_EVENT=target-changed --output=cat';
  t.match((await host.ok(said)).split('\n').at(-1), /16 MiB/, 'the journal goes on');
  t.equal(await host.service('MainPID'), pid, 'the same daemon');
});

void t.test('its sandbox allows what it needs and nothing else', async (t) => {
  const checks: [command: string, works: boolean, why: string][] = [
    ['cat /proc/$VMM/maps', true, 'private memory is told from shared memory'],
    ['cat /proc/$VMM/cmdline', true, 'VMs have names'],
    ['cat /proc/$VMM/cgroup', true, 'VMs have limits'],
    ['ls -l /proc/$VMM/fd/', true, 'pinned memory is noticed'],
    ['cat /proc/meminfo /proc/pressure/memory', true, 'the state of the host is known'],
    [`perl -e '${syscallExists(SYS_PROCESS_MADVISE)}'`, true, 'many ranges are discarded by one call'],
    ['touch /run/balloond/x && rm /run/balloond/x', true, 'the control socket is made'],
    ['touch /var/lib/balloond/x && rm /var/lib/balloond/x', true, 'the policy records'],
    ['nice -n 5 true', true, 'threads step back'],
    ['chrt --fifo 1 true', false, 'real-time priority'],
    ['taskset 1 true', false, 'other settings of resources'],
    ['test -w /proc/$VMM/mem', false, 'memory of processes'],
    ['kill -0 $VMM', false, 'signals'],
    ['touch /var/tmp/../x || touch /usr/x || touch /etc/x', false, 'the file system'],
    ['touch /run/x || touch /run/systemd/x', false, 'files that others keep until the next boot'],
    ["ls -A /root/ /home/ | grep -q '^[.]'", false, 'homes'],
    ['test -e /dev/nvme0n1', false, 'devices'],
    ['mkdir /sys/fs/cgroup/x', false, 'cgroups'],
    ['test -w /sys/fs/cgroup/system.slice/memory.max', false, 'limits of others'],
    [`perl -e 'exit(!socket(S, 2, 1, 0))'`, false, 'network'],
    ['unshare --user true', false, 'namespaces'],
  ];
  const lines = checks.map(
    ([command]) => `if (${command}) >/dev/null 2>&1; then echo true; else echo false; fi`,
  );
  await host.ok(`cat >/run/probe.sh <<'END'\n${lines.join('\n')}\nEND`);
  await host.ok(`cd /run/systemd/system && cp /usr/lib/systemd/system/balloond.service probe.service
    mkdir probe.service.d && cat >probe.service.d/probe.conf <<END
[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart=/bin/sh /run/probe.sh
Environment=VMM=$(systemctl show --value --property=MainPID web.service)
StandardOutput=truncate:/run/probe.out
END
    systemctl daemon-reload && systemctl start probe.service`);
  const results = (await host.ok('cat /run/probe.out')).split('\n');
  for (const [n, [command, works, why]] of checks.entries())
    t.equal(results[n], String(works), `${why}: ${command}`);
});

/** Each limit that was set by itself: what the kernel has, and what it must not be under. */
function assertFollowed(t: Test, all: DaemonEvent[]): DaemonEvent[] {
  const events = all.filter(({ vm }) => vm === 'web');
  for (const { event, fields } of events) {
    if (event !== 'limit-set' || !('mayUseBytes' in fields)) continue;
    const { mayUseBytes, ownBytes, currentBytes, highToBytes = Infinity, maxToBytes = Infinity } = fields;
    const least = Number(mayUseBytes) + Number(ownBytes);
    for (const limit of [highToBytes, maxToBytes]) {
      t.ok(Number(limit) >= least && Number(limit) >= Number(currentBytes), JSON.stringify(fields));
    }
  }
  return events;
}

const WEB = '/sys/fs/cgroup/system.slice/web.service';
const webLimits = async (): Promise<number[]> =>
  (await host.ok(`cat ${WEB}/memory.high ${WEB}/memory.max`)).split('\n').map(Number);

void t.test('limits: exact where asked for, else above what the guest may use', async (t) => {
  await host.ok('balloonctl limit web --high 300M --max 314576896');
  t.same(await webLimits(), [300 * MIB, 314_576_896]);
  const { refusal, lowest, view, events } = await host.json<FollowReport>(
    `node ${TESTS}/out/test/support/host-lab/follow.js /run/balloond/control.sock web`,
  );
  t.match(refusal, /the kernel would kill it: set a balloon first/);
  t.match(lowest.limits, { high: 'follow', max: 'follow', mayUseBytes: 16 * MIB, problem: null });
  t.equal(lowest.cgroup?.path, '/system.slice/web.service');
  t.ok(Number(lowest.cgroup?.highBytes) < 150 * MIB, 'lowered');
  const followed = assertFollowed(t, events);
  const raised = followed.findIndex(
    ({ event, fields }) => event === 'limit-set' && fields['why'] === 'target',
  );
  const told = followed.findLastIndex(({ event }) => event === 'target-changed');
  t.ok(raised > 0 && raised < told, 'raised before the guest hears that it may use more');
  t.same(await webLimits(), [view.cgroup?.highBytes, view.cgroup?.maxBytes]);
  t.ok(Number(view.cgroup?.highBytes) > Number(lowest.cgroup?.highBytes));
  t.same(
    followed.filter(({ event }) => /limit-failed|pressure-unknown|cgroup-unknown/.test(event)),
    [],
  );
});

void t.test('killed, it goes on where it was, and who connects meanwhile waits', async (t) => {
  const inode = 'stat --format=%i /run/balloond/balloond.sock';
  const before = await host.ok(inode);
  await host.ok(`systemctl kill --signal=KILL balloond.service && ${startVmm('late')}`);
  t.equal(await host.service('NRestarts'), '1');
  t.equal(await host.service('ActiveState'), 'active');
  t.equal(await host.ok(inode), before, 'the same socket');
  const vms = await host.json<VmView[]>('balloonctl --json list');
  t.same(vms.map(({ name, state }) => `${name} ${state}`).sort(), [
    'late running',
    'private connected',
    'web running',
  ]);
  const web = vms.find(({ name }) => name === 'web');
  t.match(web?.balloon, { actualBytes: 16 * MIB, targetBytes: 16 * MIB });
  t.match(web?.limits, { high: 'follow', max: 'follow', problem: null });
  await host.ok(`balloonctl set web --balloon 17M ${WAIT}`);
});

void t.test('stuck, it is ended by the watchdog', async (t) => {
  await host.ok(`rm ${PATIENT} && systemctl daemon-reload && systemctl restart balloond.service
    before=$(systemctl show --value --property=MainPID balloond.service)
    systemctl kill --signal=STOP balloond.service
    until [ "$(systemctl show --value --property=MainPID balloond.service)" -gt "$before" ]; do sleep 0.2; done
    until systemctl is-active --quiet balloond.service; do sleep 0.2; done`);
  t.match(await host.ok('journalctl --unit=balloond.service --output=cat'), /[Ww]atchdog timeout/);
  await host.ok(`${bePatient}; systemctl restart balloond.service`);
  await host.ok(`balloonctl set web --balloon 18M ${WAIT}`);
});

void t.test('stopped and started again, as for an upgrade, with a mistake in its file by then', async (t) => {
  const { output } = await host.sh('systemctl stop balloond.service && balloonctl list');
  t.match(output, / has no daemon behind it: /);
  t.notMatch(output, /waiting for the daemon/, 'nobody starts it');
  await host.ok(`sed --in-place=.good '1i log-levle = "info"' /etc/balloond.toml
    systemctl start balloond.service`);
  const shown = await host.json('balloonctl --json show web 2>/tmp/note');
  t.match(shown, { balloon: { actualBytes: 18 * MIB } });
  t.match(
    await host.ok('cat /tmp/note'),
    /log-levle is unknown: did you mean .*: mend the mistake, then run /,
  );
  await host.ok(`balloonctl set web --balloon 16M ${WAIT}`);
  await host.ok('mv /etc/balloond.toml.good /etc/balloond.toml && systemctl reload balloond.service');
  await host.ok('balloonctl limit web --high restore --max restore');
  t.equal(
    await host.ok(`cd ${WEB} && cat memory.high memory.max`),
    'max\nmax',
    'found by two daemons before',
  );
});

void t.test('stopped with its socket and not enabled, it goes on where it was', async (t) => {
  const units = 'balloond.socket balloond.service';
  await host.ok(`systemctl disable --quiet ${units} && systemctl stop ${units} && sleep 1`);
  t.equal(await host.service('ActiveState'), 'inactive');
  t.ok(Number(await host.service('NFileDescriptorStore')) > HELD_ALWAYS, 'systemd holds the VMs meanwhile');
  await host.ok(`systemctl start ${units}`);
  t.match(await host.json('balloonctl --json show web'), { balloon: { actualBytes: 16 * MIB } });
  await host.ok(`balloonctl set web --balloon 17M ${WAIT} && balloonctl set web --balloon 16M ${WAIT}`);
  await host.ok(`systemctl enable --quiet ${units}`);
  t.match(
    await host.ok('journalctl --unit=balloond.service --output=cat'),
    /SIGTERM; systemd holds \d VMs for the next daemon/,
  );
});

/** As docs/installing.md has it under "Metrics on TCP". */
const NETWORK = /Metrics on TCP.*?\[Service\]\n(.*?)```/s.exec(
  readFileSync(join(ROOT, 'docs/installing.md'), 'utf8'),
)?.[1];
const WILL_SECONDS = 2;
const FORCE_SECONDS = 5;
const MULE_MIN_BYTES = 16 * MIB;
const STATS_SECONDS = 3;
/** The VMs have 48, 64 and 64 MiB, and 15 are to be available: there are 8, and then 20. */
const POLICY = `metrics = "127.0.0.1:9797"

[policy]
mode = "auto"
memory = "150M"
interval = 0.25
record = "/var/lib/balloond/trace.ndjson"
will-grace = ${WILL_SECONDS}
force-grace = ${FORCE_SECONDS}

[[policy.band]]
name = "gold"
match = ["web", "late", "private"]
min = "100%"

[[policy.band]]
name = "bronze"
match = ["mule"]
min = "16M"

[[vm]]
match = "*"
stats-interval = ${STATS_SECONDS}
`;

void t.test(
  'who does not yield is forced by memory.high, then memory.max, and released in reverse',
  async (t) => {
    const dropIn = '/run/systemd/system/balloond.service.d';
    await host.ok(`mkdir -p ${dropIn}
    mkdir -p /etc/balloond.toml.d
    cat >/etc/balloond.toml.d/policy.toml <<'END'
${POLICY}END
    cat >${dropIn}/policy.conf <<'END'
[Service]
SystemCallFilter=~setpriority
${NETWORK}
END
    ${startVmm('mule', { memory: 'stubborn' })}`);
    const { steps, triggered, events, oomKills, peakBytes, vm } = await host.json<ForceReport>(
      `node ${TESTS}/out/test/support/host-lab/force.js /run/balloond/control.sock mule '
        systemctl daemon-reload; systemctl restart balloond.service' web ${28 * MIB} \
        /etc/balloond.toml.d/policy.toml`,
    );
    t.comment(JSON.stringify(steps));
    const shape = steps.map(({ highBytes, maxBytes }) => [highBytes !== null, maxBytes !== null]);
    const peak = shape.findIndex(([, max]) => max);
    t.ok(peak > 0 && shape.slice(0, peak).every(([, max]) => !max), 'memory.high goes first');
    t.same(shape[0], [false, false], 'nothing was limited before');
    t.same(shape.at(-1), [false, false], 'nor is anything afterwards');
    const highs = (part: ForceReport['steps']): number[] =>
      part.map(({ highBytes }) => highBytes ?? Infinity);
    // The limits of one step are written one after the other, so that the last look at both counts.
    const up = highs(steps.slice(shape.findLastIndex(([, max]) => max)));
    t.same(
      up,
      [...up].sort((a, b) => a - b),
      'and in reverse',
    );
    t.ok(
      shape.slice(peak).some(([high, max]) => high && !max),
      'memory.max first',
    );
    t.ok(
      steps.every(({ maxBytes, currentBytes }) => maxBytes === null || maxBytes >= currentBytes),
      'memory.max is never below what is charged',
    );
    t.equal(oomKills, 0);
    t.ok(triggered > 0, `the kernel said by itself that its tasks wait: ${triggered} times`);
    const of = (name: DaemonEvent['event']): DaemonEvent[] =>
      events.filter(({ event, vm: who }) => event === name && who === 'mule');
    t.ok(of('policy-took').length > 0, 'it was asked before it was forced');
    const forced = of('policy-forced');
    t.same(
      forced.map(({ fields }) => fields['rung']),
      [1, 2, 3, 4],
      events.map(({ time, event, vm: who, message }) => `${time} ${event} ${who}: ${message}`).join('\n'),
    );
    // Each is a share of what is used above what it may use, and both vary: the VMM's own memory is in them.
    const held = forced.slice(0, 3).map(({ fields }) => Number(fields['highBytes']));
    t.same(highs(steps.slice(1, 4)), held, 'in three steps, as was said');
    t.ok(
      held.every((high) => high >= MULE_MIN_BYTES && high < peakBytes),
      `below what it used, above what it may use: ${held.join()}, ${peakBytes}`,
    );
    const graces = forced.map(({ fields }) => Number(fields['graceSeconds']));
    t.ok(
      graces.every((seconds, n) => seconds >= (n === 0 ? WILL_SECONDS : FORCE_SECONDS)),
      `no step before its grace time: ${graces.join()}`,
    );
    t.same(
      of('policy-released').map(({ fields }) => fields['rung']),
      [3, 2, 1, 0],
    );
    t.same(vm.limits, { ...vm.limits, high: null, max: null, problem: null });
    t.match(
      await host.ok(
        `bash -c 'exec 3<>/dev/tcp/127.0.0.1/9797; printf "GET /metrics HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'`,
      ),
      /^balloond_vm_memory_bytes\{.*vm="mule"/m,
      'metrics on TCP, let in as documented',
    );
    t.match(
      await host.ok('journalctl --unit=balloond --output=cat BALLOOND_EVENT=priority-refused'),
      /^discards compete with rings for the processor: setpriority: EPERM$/,
      'where the threads may not step back, that is said once',
    );
    t.match(await host.ok('head -n 1 /var/lib/balloond/trace.ndjson'), /"totalBytes":157286400/, 'recorded');
    await host.ok(`rm -r ${dropIn}/policy.conf /etc/balloond.toml.d && systemctl daemon-reload`);
  },
);

void t.test(
  'the time is set forth and back: no VM that is well is suspected, one that hangs is noticed',
  async (t) => {
    for (const by of ['+2 hours', '-4 hours']) {
      const web = (await host.json<VmView[]>(`date --set='${by}' >/run/date && balloonctl --json list`)).find(
        ({ name }) => name === 'web',
      );
      t.equal(web?.verdict, null, by);
      const age = web?.stats?.ageSeconds ?? NaN;
      t.ok(age >= 0 && age < 600, `${by}: statistics are ${age} s old`);
    }
    await host.ok(`systemctl kill --signal=STOP web.service
    until balloonctl --json show web | grep -q 'sent no statistics for [0-9][0-9]\\? s,'; do sleep 0.5; done
    systemctl kill --signal=CONT web.service; date --set='+2 hours' >/run/date`);
  },
);

void t.test('who leaves takes all along', async (t) => {
  const refused = await host.sh(`sh ${BUILT}/scripts/install-system --remove`);
  t.match(refused.output, /VMs have their balloon from balloond \(.*web.*\)/, 'it stays while VMs need it');
  t.not(refused.code, 0);
  await host.ok('systemctl stop web.service late.service private.service mule.service');
  await host.ok(`until [ "$(balloonctl --json list)" = '[]' ]; do sleep 0.2; done`);
  await host.ok(`until [ "$(systemctl show --value --property=NFileDescriptorStore balloond.service)" = ${HELD_WITH_METRICS} ]; do
    sleep 0.2; done`);
});

void t.test('stopped in order', async (t) => {
  await host.ok('systemctl stop balloond.socket balloond.service');
  t.equal(await host.service('Result'), 'success', 'it did not have to be killed');
  t.equal(await host.service('ExecMainStatus'), '0');
  t.equal(await host.ok('ls /run/balloond'), '');
});

void t.test('removed, it leaves the configuration and accounts; purged, it leaves nothing', async (t) => {
  await host.ok(`rm -r ${dirname(PATIENT)}`);
  await host.ok('rm -r /var/lib/balloond');
  await host.installer('--remove');
  t.equal(
    await host.ok('ls /etc/balloond.toml && getent passwd balloond | cut -d: -f1'),
    '/etc/balloond.toml\nballoond',
  );
  await host.installer('--purge');
  t.equal(await host.ok(`${TRACES} | diff /run/before -`), '');
});
