// How full a host may be, the work that its VMs do, and the time that a guest waits for memory of its balloon.
import t from 'tap';
import { PolicySettings, type PolicyFile } from '../../src/policy/settings.js';
import { HostModel } from '../../src/simulate/host-model.js';
import { POLICY_NAMES } from '../../src/simulate/planners.js';
import { capacity, mostStalled, simulateHosts, type Outcome } from '../../src/simulate/simulation.js';

const GIB = 2 ** 30;
const FLEET = { hostBytes: 64 * GIB, hours: 3, stepSeconds: 10, seed: 7 };
const settings = new PolicySettings({});

for (const policy of POLICY_NAMES) {
  void t.test(`${policy}: one VM more than a host holds is too many for some band`, (t) => {
    const { vmsPerHost, outcome } = capacity(FLEET, 1, policy, settings);
    const tooMany = ({ stallShare, oomSeconds }: Outcome): boolean =>
      oomSeconds > 0 || stallShare.some((share, band) => share > mostStalled(band));
    t.equal(tooMany(outcome), false);
    t.equal(tooMany(simulateHosts(FLEET, 1, vmsPerHost + 1, policy, settings)), true);
    t.end();
  });
}

void t.test('work is the time in which VMs do not wait, by the weights of their bands', (t) => {
  const alone = new PolicySettings({ policy: { band: [{ name: 'all' }] } });
  const { stallShare, workShare } = simulateHosts(FLEET, 1, 40, 'static limits', alone);
  t.ok((stallShare[0] ?? 0) > 0.01, 'that host is full');
  t.ok(Math.abs(workShare + (stallShare[0] ?? 0) - 1) < 1e-9);
  const full = (file: PolicyFile): Outcome =>
    simulateHosts(FLEET, 1, 30, 'balloond', new PolicySettings(file));
  const bands = [
    { name: 'gold', min: '50%' },
    { name: 'bronze', min: '10%' },
  ];
  const alike = full({ policy: { band: bands } });
  const [gold = 0, bronze = 0] = alike.stallShare;
  t.ok(bronze > gold);
  t.ok(alike.workShare > 1 - bronze && alike.workShare < 1 - gold);
  const weighted = full({
    policy: { band: bands.map((band, n) => ({ ...band, weight: n === 0 ? 100 : 0.01 })) },
  });
  t.ok(Math.abs(weighted.workShare + (weighted.stallShare[0] ?? 0) - 1) < 0.001, 'gold alone counts');
  t.end();
});

void t.test('a guest waits for the memory that it takes out of its balloon, and for no other', (t) => {
  const demand = { ramBytes: Float64Array.of(4 * GIB), wantBytes: Float64Array.of(GIB) };
  const host = new HostModel(demand, 64 * GIB, ['vm'], () => 0, settings);
  const waits = (targetBytes: number, wantBytes: number): number => {
    const before = host.stallSeconds[0] ?? 0;
    host.table.targetBytes[0] = targetBytes;
    demand.wantBytes[0] = wantBytes;
    host.step(10);
    return (host.stallSeconds[0] ?? 0) - before;
  };
  t.equal(waits(2 * GIB, GIB), 0, 'it gives up memory that it does not use');
  t.equal(waits(0, GIB), 0, 'it gets memory for which it has no use');
  t.equal(waits(2 * GIB, 2 * GIB), 0, 'it grows into memory that it had');
  const one = waits(GIB, 3 * GIB);
  t.ok(one > 0 && one < 1);
  const two = waits(2 * GIB, 2 * GIB) + waits(0, 4 * GIB);
  t.ok(Math.abs(two - 2 * one) < 1e-9, 'twice as much takes twice as long');
  t.end();
});
