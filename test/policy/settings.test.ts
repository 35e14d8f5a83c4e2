import t from 'tap';
import { policyMistakes, PolicySettings } from '../../src/policy/settings.js';

const GIB = 2 ** 30;

void t.test('VMs may have all of the host, or the part that memory says', (t) => {
  t.equal(new PolicySettings({}).memoryBytes(64 * GIB), 64 * GIB);
  t.equal(new PolicySettings({ policy: { memory: '75%' } }).memoryBytes(64 * GIB), 48 * GIB);
  const settings = new PolicySettings({ policy: { memory: '16G', reserve: '4G' } });
  t.equal(settings.memoryBytes(64 * GIB), 16 * GIB);
  t.match(settings.config(16 * GIB, 'part of host'), { reserveShare: 0.25, stock: 'part of host' });
  t.equal(settings.misfit(64 * GIB), null);
  t.end();
});

void t.test('amounts that a host cannot honour are named, and what is done instead', (t) => {
  const large = new PolicySettings({ policy: { memory: '16G' } });
  t.equal(large.memoryBytes(8 * GIB), 8 * GIB);
  t.match(
    large.misfit(8 * GIB),
    "VMs may have all of the host's memory, because memory (16 GiB) is more than the host has (8 GiB)",
  );
  const greedy = new PolicySettings({ policy: { reserve: '15G' } });
  t.equal(greedy.config(16 * GIB).reserveShare, 0.9);
  t.match(
    greedy.misfit(16 * GIB),
    /^the policy keeps 90 % in reserve, because reserve \(15 GiB\) leaves .* of 16 GiB/,
  );
  t.end();
});

void t.test('what can be meant on no host is refused, all of it at once', (t) => {
  t.match(policyMistakes({ policy: { memory: '0%' } }), [{ where: 'policy.memory' }]);
  t.match(policyMistakes({ policy: { memory: 'much' } }), [{ where: 'policy.memory', what: /is no amount/ }]);
  t.match(policyMistakes({ policy: { memory: '101%', ramp: '0%', reserve: '95%' } }), [
    { where: 'policy.memory', what: /more than 100%/ },
    { where: 'policy.ramp', what: /more than 0%/ },
    { where: 'policy.reserve', what: /more than 90%/ },
  ]);
  t.match(policyMistakes({ policy: { 'record-max': '1K' } }), [{ where: 'policy.record-max' }]);
  t.same(policyMistakes({ policy: { memory: '50%', reserve: '90%', 'record-max': '1M' } }), []);
  t.end();
});

void t.test('a balloon follows the working set where its band or the last [[vm]] says so', (t) => {
  const settings = new PolicySettings({
    policy: { band: [{ name: 'gold', match: ['db-*'], size: 'working-set' }, { name: 'bronze' }] },
    vm: [
      { match: '*-1', size: 'working-set' },
      { match: 'db-2', size: 'on-demand' },
      { match: '*-1', min: '10%' },
    ],
  });
  const size = (name: string): string => settings.entitlement(name, GIB).size;
  t.same(['db-0', 'db-2', 'web-0', 'web-1'].map(size), [
    'working-set',
    'on-demand',
    'on-demand',
    'working-set',
  ]);
  t.equal(new PolicySettings({}).entitlement('db-0', GIB).size, 'on-demand');
  t.end();
});
