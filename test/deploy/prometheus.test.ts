// What is shipped for Prometheus and Grafana, against a real Prometheus and a daemon that serves VMs.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { STAT_NAMES } from '../../protocol/virtio/balloon.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { CACHE_CONFIG_BYTES, CacheDriver } from '../support/cache-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { DASHBOARD, Prometheus, promtool, RULES, RULES_TEST, type Series } from '../support/prometheus.js';
import { pfns } from '../support/served-vm.js';
import { eventually } from '../support/deadline.js';
import { ANY_VMM } from '../support/vmm-orders.js';

const VMS = 3;
const PAGES = 256;
const WINDOW = '5s';
const SOCKETS = `[[socket]]
path = "{folder}/vhost.sock"
[[socket]]
path = "{folder}/cache.sock"
device = "cache-balloon"
`;
const VARIABLES: Readonly<Record<string, string>> = {
  __rate_interval: WINDOW,
  instance: '.*',
  vm: '.*',
};

interface Dashboard {
  panels: { title: string; targets?: { expr: string; legendFormat?: string }[] }[];
  templating: { list: { type: string; definition?: string }[] };
}

function dashboardQueries(): string[] {
  const { panels, templating } = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as Dashboard;
  const shown = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  // label_values(METRIC, LABEL): the metric must be there.
  const listed = templating.list.flatMap(({ definition }) =>
    definition === undefined ? [] : [definition.replace(/^label_values\((.*), \w+\)$/, '$1')],
  );
  return [...shown, ...listed].map((query) =>
    query.replaceAll(/\$(\w+)/g, (_, name: string) => VARIABLES[name] ?? `unknown variable ${name}`),
  );
}

function hasData(series: readonly Series[]): boolean {
  return series.some(({ value: [, value] }) => Number.isFinite(Number(value)));
}

/** A VM whose guest gives memory up and takes it back, over and over, until it is closed. */
async function busyVm(t: Test, socket: string): Promise<void> {
  const ram = new GuestRam([{ gpa: 0, lenBytes: 16 * 2 ** 20 }]);
  const frontend = new Frontend({ socket, ram, order: ANY_VMM });
  t.teardown(() => frontend.close());
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend, {
    areaGpa: 0x10000,
    stats: () => STAT_NAMES.map((_, tag) => [tag, BigInt(tag + 1) << 20n] as const),
  });
  repeat(t, async () => {
    await driver.inflate(pfns(1024, PAGES));
    await sleep(100);
    await driver.deflate(pfns(1024, PAGES));
    await driver.report([{ gpa: 4 * 2 ** 20, len: 2 ** 20 }]);
  });
}

/** The same of a page cache balloon, whose pages the guest takes back and tells of. */
async function busyCache(t: Test, socket: string): Promise<void> {
  const ram = new GuestRam([{ gpa: 0, lenBytes: 16 * 2 ** 20 }]);
  const frontend = new Frontend({
    socket,
    ram,
    queueCount: 2,
    configBytes: CACHE_CONFIG_BYTES,
    order: ANY_VMM,
  });
  t.teardown(() => frontend.close());
  await frontend.connect();
  const driver = await CacheDriver.start(frontend);
  const blocks = [{ pfn: 1024, order: 8 }];
  repeat(t, async () => {
    await driver.add(blocks);
    await sleep(100);
    await driver.reclaimed(blocks);
  });
}

/** Until the test ends, which waits for the round that runs: its rings go away afterwards. */
function repeat(t: Test, round: () => Promise<void>): void {
  let over = false;
  const rounds = async (): Promise<void> => {
    while (!over) await round();
  };
  const all = rounds();
  t.teardown(() => {
    over = true;
    return all;
  });
}

void t.test('alert rules are right, and say what they should', (t) => {
  const rules = promtool(['check', 'rules', RULES]);
  t.equal(rules.status, 0, rules.output);
  const tests = promtool(['test', 'rules', RULES_TEST]);
  t.equal(tests.status, 0, tests.output);
  const alerts = [...readFileSync(RULES, 'utf8').matchAll(/alert: (\w+)/g)].map(([, name = '']) => name);
  const tried = readFileSync(RULES_TEST, 'utf8');
  for (const name of alerts) t.ok(tried.includes(`alertname="${name}"`), `${name} has a test`);
  t.end();
});

void t.test('alerts and legends name the VM and its host', (t) => {
  const { panels } = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as Dashboard;
  const legends = panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr, legendFormat = '' }) => ({ title, expr, legendFormat })),
  );
  for (const { title, expr, legendFormat } of legends) {
    t.match(legendFormat, '{{instance}}', `${title}: ${legendFormat}`);
    if (expr.includes('balloond_vm_')) t.match(legendFormat, '{{vm}}', `${title}: ${legendFormat}`);
  }
  t.ok(legends.length > 30);
  const alerts = readFileSync(RULES, 'utf8').split('- alert: ').slice(1);
  for (const alert of alerts) {
    const [, summary = ''] = /summary: (.*)/.exec(alert) ?? [];
    t.match(summary, '{{ $labels.instance }}', summary);
    if (alert.includes('expr: balloond_vm_') || summary.includes('vm'))
      t.match(summary, '{{ $labels.vm }}', summary);
  }
  t.ok(alerts.length > 15);
  t.end();
});

void t.test('a Prometheus that scrapes a daemon', async (t) => {
  const daemon = await DaemonProcess.start({ metrics: true, config: SOCKETS });
  t.teardown(() => daemon.stop());
  for (let n = 0; n < VMS; n++) await busyVm(t, daemon.socketPath);
  await busyCache(t, `${daemon.folder}/cache.sock`);
  const prometheus = await Prometheus.start(daemon.metricsUrl.replace('http://', ''));
  t.teardown(() => prometheus.stop());

  const metrics = await (await fetch(`${daemon.metricsUrl}/metrics`)).text();
  const check = promtool(['check', 'metrics'], metrics);
  t.equal(check.status, 0, check.output);
  t.equal(check.output, '', 'promtool has nothing to say of names, types and helps');

  const queries = dashboardQueries();
  t.ok(queries.length > 30);
  let without = queries;
  await eventually(
    async () => {
      const answers = await Promise.all(without.map((query) => prometheus.query(query)));
      without = without.filter((_, at) => !hasData(answers[at] ?? []));
      return without.length === 0;
    },
    () => `every query of the dashboard has data, but for ${without.join(' and ')}`,
    500,
  );
  t.equal((await prometheus.query('balloond_vm_memory_bytes')).length, VMS, 'a series for each VM');

  const { groups } = (await prometheus.get('/api/v1/rules')) as {
    groups: { rules: { name: string; health: string; lastError?: string }[] }[];
  };
  const rules = groups.flatMap((group) => group.rules);
  t.ok(rules.length > 5);
  t.same(
    rules.filter(({ health }) => health !== 'ok'),
    [],
    'every rule was evaluated',
  );
});
