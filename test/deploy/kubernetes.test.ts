// What is shipped for Kubernetes, as far as it can be tried without one.
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { DaemonSet } from 'kubernetes-types/apps/v1.js';
import type { ConfigMap, Container } from 'kubernetes-types/core/v1.js';
import t from 'tap';
import { readConfigFile } from '../../src/daemon/config/read.js';
import { SettingsError } from '../../src/daemon/settings.js';
import { BIN, DaemonProcess } from '../support/daemon.js';
import { readManifest, ROOT, schemaMistakes, type KubernetesObject } from '../support/kubernetes.js';
import { promtool } from '../support/prometheus.js';
import { eventually } from '../support/deadline.js';

const MANIFEST = 'deploy/kubernetes/balloond.yaml';
const RULES = join(ROOT, 'deploy/kubernetes/headroom.rules.yml');
const RULES_TEST = join(ROOT, 'deploy/kubernetes/headroom.rules.test.yml');

function object(kind: string): KubernetesObject {
  const found = readManifest(MANIFEST).find((each) => each.kind === kind);
  if (found === undefined) throw new Error(`${MANIFEST} has no ${kind}`);
  return found;
}

function container(name: string): Container {
  const { spec } = object('DaemonSet') as DaemonSet;
  const found = spec?.template.spec?.containers.find((each) => each.name === name);
  if (found === undefined) throw new Error(`the DaemonSet has no container ${name}`);
  return found;
}

function data(key: string): string {
  const text = (object('ConfigMap') as ConfigMap).data?.[key];
  if (text === undefined) throw new Error(`the ConfigMap has no ${key}`);
  return text;
}

void t.test('manifests are as the API wants them, and a mistake would be found', (t) => {
  const objects = readManifest(MANIFEST);
  t.same(
    objects.map(({ kind }) => kind),
    ['Namespace', 'ConfigMap', 'NetworkPolicy', 'DaemonSet'],
  );
  const set = JSON.stringify(object('DaemonSet'));
  const wrong = [
    set.replace('"hostPID":', '"hostPid":'),
    set.replace('"hostPID":true', '"hostPID":"true"'),
    set.replace('"appArmorProfile":', '"apparmorProfile":'),
    set.replace('"readOnly":true', '"readOnly":1'),
    set.replace('"selector":{', '"chooser":{'),
  ];
  for (const text of wrong) t.not(text, set);
  const mistakes = schemaMistakes([...objects, ...wrong.map((text) => JSON.parse(text) as KubernetesObject)]);
  t.same(
    mistakes.slice(0, objects.length),
    objects.map(() => []),
  );
  t.match(mistakes.slice(objects.length), [
    [/hostPid/],
    [/string.*boolean/],
    [/apparmorProfile/],
    [/number.*boolean/],
    [/chooser/],
  ]);
  t.end();
});

void t.test('volumes are mounted, and files are where they are looked for', (t) => {
  const pod = (object('DaemonSet') as DaemonSet).spec?.template.spec;
  const volumes = new Set(pod?.volumes?.map(({ name }) => name));
  const mounted = new Set(
    pod?.containers.flatMap(({ volumeMounts = [] }) => volumeMounts.map(({ name }) => name)),
  );
  t.same([...mounted].sort(), [...volumes].sort());
  const folder = container('balloond').volumeMounts?.find(({ name }) => name === 'config')?.mountPath;
  t.ok(container('balloond').args?.includes(`${folder}/balloond.toml`));
  t.ok(container('headroom').command?.includes(`${folder}/headroom.mjs`));
  t.end();
});

void t.test('balloond knows every flag and key', (t) => {
  const help = spawnSync(process.execPath, [join(BIN, 'balloond.js'), '--help'], { encoding: 'utf8' }).stdout;
  const known = new Set(help.match(/--[a-z-]+/g));
  const used = container('balloond').args?.filter((argument) => argument.startsWith('--')) ?? [];
  t.ok(used.includes('--supervise'));
  for (const flag of used) t.ok(known.has(flag), flag);

  const file = join(t.testdir(), 'balloond.toml');
  writeFileSync(file, data('balloond.toml'));
  t.equal(readConfigFile(file).policy?.mode, 'observe');
  writeFileSync(file, data('balloond.toml').replace('reserve =', 'reserved ='));
  t.throws(() => readConfigFile(file), SettingsError);

  const reserve = /reserve = "(\d+)%"/.exec(data('balloond.toml'))?.[1];
  const told = container('headroom').env?.find(({ name }) => name === 'RESERVE_PERCENT')?.value;
  t.equal(told, reserve, 'what the scheduler is told keeps the reserve of the policy');
  t.match(readFileSync(RULES, 'utf8'), `- ${Number(reserve) / 100} * sum`, 'so do the rules');
  t.end();
});

void t.test('rules do what they should, with metrics that there are', (t) => {
  const check = promtool(['check', 'rules', RULES]);
  t.equal(check.status, 0, check.output);
  const tests = promtool(['test', 'rules', RULES_TEST]);
  t.equal(tests.status, 0, tests.output);
  const documented = new Set(
    [...readFileSync(join(ROOT, 'docs/metrics.md'), 'utf8').matchAll(/^\| `(\w+)`/gm)].map(
      ([, name]) => name,
    ),
  );
  // Names with a colon are made by the rules themselves.
  const used = readFileSync(RULES, 'utf8').match(/(?<![:\w])balloond_\w+/g) ?? [];
  t.ok(used.length > 5);
  for (const name of [...used, ...(data('headroom.mjs').match(/balloond_\w+/g) ?? [])]) {
    t.ok(documented.has(name), name);
  }
  t.end();
});

void t.test(
  'a daemon under a keeper with this configuration, its probe, and what the scheduler is told',
  async (t) => {
    const config = data('balloond.toml')
      .replace('/run/balloond-vmm', '{folder}')
      .replace('0.0.0.0:9797', '127.0.0.1:0');
    t.match(config, /"\{folder\}\/balloond\.sock"/);
    const daemon = await DaemonProcess.start({ config, supervise: true });
    t.teardown(() => daemon.stop());
    t.ok(existsSync(join(daemon.folder, 'balloond.sock')));

    const [program, ...probe] = container('balloond').readinessProbe?.exec?.command ?? [];
    t.equal(program, 'balloonctl');
    await promisify(execFile)(process.execPath, [
      join(BIN, 'balloonctl.js'),
      '--control',
      daemon.controlPath,
      ...probe,
    ]);

    const folder = t.testdir({ 'headroom.mjs': data('headroom.mjs') });
    const env = Object.fromEntries(container('headroom').env?.map(({ name, value }) => [name, value]) ?? []);
    const script = spawn(process.execPath, [join(folder, 'headroom.mjs')], {
      env: { ...env, METRICS_URL: `${daemon.metricsUrl}/metrics`, FEATURES_FOLDER: folder },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    t.teardown(async () => {
      script.kill();
      if (script.exitCode === null && script.signalCode === null) await once(script, 'exit');
    });
    await eventually(
      () => existsSync(join(folder, 'balloond')),
      () => 'it is written',
    );
    const written = readFileSync(join(folder, 'balloond'), 'utf8');
    const expiry = /^# \+expiry-time=(\S+)$/m.exec(written)?.[1] ?? '';
    t.ok(Date.parse(expiry) > Date.now(), 'it expires, and not yet');
    const totalKib = Number(/^MemTotal: +(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
    const features = Object.fromEntries(
      [...written.matchAll(/^# \+no-label\n([\w-]+)=(\d+)$/gm)].map(([, name = '', value]) => [
        name,
        Number(value),
      ]),
    );
    t.equal(features['balloond-guest-gib'], Math.floor((totalKib * 1.5) / 2 ** 20));
    t.ok((features['balloond-headroom-gib'] ?? Infinity) < totalKib / 2 ** 20);

    const [rule] = readManifest('deploy/kubernetes/node-feature-rule.yaml');
    const asked = [...JSON.stringify(rule).matchAll(/@local\.feature\.([\w-]+)/g)].map(([, name]) => name);
    t.same(asked.sort(), Object.keys(features).sort(), 'the rule asks for what is written');
  },
);
