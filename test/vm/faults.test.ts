// What was wrong while an operator's word was kept in a device, and not with the VM.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { examineVm } from '../../src/control/cli/doctor.js';
import { eventually } from '../support/deadline.js';
import type { ConfigFile } from '../../src/daemon/settings.js';
import { MemoryFleet, serveFleet, temporaryFolder, vmView } from '../support/fleet.js';
import { CGROUP, NAME, wire } from '../support/vm-on-the-wire.js';

const MIB = 2 ** 20;
const PAGE_BYTES = 4096;

void t.test('an inhibit reaches a device that connects later', async (t) => {
  const { fleet, connect } = wire(t);
  await connect('cache-balloon');
  await fleet.control.setInhibited(NAME, 'backup');
  const late = await connect('balloon');
  await late.give(512);
  // A sweep is due after 10 ms.
  await sleep(100);
  t.match(fleet.control.find(NAME), {
    inhibited: 'backup',
    balloon: { discardedBytesTotal: 0, pendingBytes: 512 * PAGE_BYTES },
  });
});

void t.test('limits belong to the VM, whichever of its devices comes or goes', async (t) => {
  const { fleet, connect, limit } = wire(t);
  const cache = await connect('cache-balloon');
  await fleet.control.setLimits(NAME, { high: 512 * MIB });
  const balloon = await connect('balloon');
  t.match(fleet.control.find(NAME), { limits: { high: 512 * MIB } });
  cache.frontend.close();
  await eventually(
    () => fleet.control.find(NAME)?.cache === null,
    () => 'one is gone',
  );
  t.equal(limit('high'), String(512 * MIB), 'the VM lives');
  await fleet.control.setLimits(NAME, { high: 'restore' });
  t.equal(limit('high'), 'max');
  balloon.frontend.close();
});

void t.test('the word of an operator outlives a power cycle of the VM', async (t) => {
  const { fleet, connect, gone, limit } = wire(t);
  await connect('balloon');
  await fleet.control.setTarget(NAME, { balloonBytes: MIB });
  await fleet.control.setInhibited(NAME, 'backup');
  await fleet.control.setLimits(NAME, { high: 512 * MIB });
  await gone();
  t.equal(limit('high'), 'max', 'a VM that is gone leaves nothing');
  await connect('balloon');
  t.match(fleet.control.find(NAME), {
    inhibited: 'backup',
    balloon: { targetBytes: MIB },
    policy: { mode: 'manual' },
  });
  await eventually(
    () => limit('high') === String(512 * MIB),
    () => 'the limit holds again',
  );
  t.match(fleet.control.find(NAME), { limits: { high: 512 * MIB } });
});

void t.test('the policy sees a shared cgroup where it is allowed', async (t) => {
  const record = join(temporaryFolder(t), 'trace.ndjson');
  const config: ConfigFile = {
    policy: { mode: 'observe', interval: 0.1, record },
    vm: [{ match: '*', 'shared-cgroup': true }],
  };
  const { fleet, tree, connect } = wire(t, config);
  tree.process(77, CGROUP);
  tree.memory(CGROUP, { current: 3 * MIB });
  await connect('balloon');
  t.match(fleet.control.find(NAME)?.cgroup, { path: CGROUP });
  fleet.startPolicy();
  const lines = (): string[] => (existsSync(record) ? readFileSync(record, 'utf8').split('\n') : []);
  await eventually(
    () => lines().length > 1,
    () => 'the policy looks',
  );
  t.match(JSON.parse(lines()[0] ?? ''), { vms: [{ name: NAME, currentBytes: 3 * MIB }] });
});

void t.test('a request for a VM looks at the whole of it once', async (t) => {
  const memory = new MemoryFleet(vmView('web1'));
  let views = 0;
  memory.onFind = () => views++;
  const { socketPath } = await serveFleet(t, memory);
  await new ControlClient(socketPath).setTarget('web1', { balloonBytes: MIB });
  t.equal(views, 0, 'the answer is the one view');
});

void t.test('doctor goes by the code of a verdict, whatever its words say', (t) => {
  const vmm = { kind: 'QEMU', version: '11.1.0' } as const;
  const checks = (vm: Parameters<typeof vmView>[1]): string[] =>
    examineVm(vmView('web1', vm), vmm, [])
      .filter(({ level }) => level !== 'ok')
      .map(({ check, mend }) => `${check}: ${mend ?? ''}`);
  const verdict = (
    code: 'private-memory' | 'too-few-queues' | 'out-of-puff',
    text: string,
    remedy: string,
  ) => ({
    verdict: `${text}: ${remedy}`,
    diagnosis: { code, text, remedy },
  });
  t.same(checks(verdict('private-memory', 'no words', 'restart it')), ['memory: restart it']);
  t.same(checks(verdict('too-few-queues', 'no words', 'more of them')), ['queues: more of them']);
  t.same(checks(verdict('out-of-puff', 'share=on num_vqs=5 EACCES', 'nothing')), ['verdict: nothing']);
  const limits = { high: null, max: null, mayUseBytes: 0, problem: 'no words: open them' };
  t.same(
    checks({
      limits: { ...limits, diagnosis: { code: 'limits-refused', text: 'no words', remedy: 'open them' } },
    }),
    ['limits: open them'],
  );
  t.end();
});
