// What was wrong while an operator's word was kept in a device, and not with the VM.
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { byName } from '../../protocol/control/limits.js';
import type { VmView } from '../../protocol/control/schema.js';
import type { TraceLine, TraceVm } from '../../protocol/policy-trace.js';
import { ControlClient } from '../../src/control/client.js';
import { examineVm } from '../../src/control/cli/doctor.js';
import type { Refusal } from '../../src/control/http.js';
import { startControlServer } from '../../src/control/server.js';
import type { VmFleet } from '../../src/daemon/fleet.js';
import type { ConfigFile } from '../../src/daemon/settings.js';
import { VmLimits } from '../../src/vm/limits.js';
import { BALLOON_F } from '../support/balloon-driver.js';
import { eventually } from '../support/deadline.js';
import { inEachOrder } from '../support/each-order.js';
import { MemoryDaemon, MemoryEvents, temporaryFolder, vmView } from '../support/fleet.js';
import { CGROUP, NAME, wire, type Wire } from '../support/vm-on-the-wire.js';
import { hasBit } from '../support/wire.js';

const MIB = 2 ** 20;
const PAGE_BYTES = 4096;
/** A file of this kernel that takes triggers. */
const PRESSURE = '/proc/pressure/memory';

inEachOrder('an inhibit reaches a device that connects later', async (t, { passes }) => {
  const { fleet, connect } = wire(t);
  await connect('cache-balloon');
  await fleet.control.setInhibited(NAME, 'backup');
  const late = await connect('balloon');
  await late.give(512);
  // A sweep is due after 10 ms.
  await sleep(100);
  t.match(fleet.control.find(NAME), {
    inhibited: 'backup',
    // A driver that need not tell owes no discards.
    balloon: {
      discardedBytesTotal: 0,
      pendingBytes: hasBit(passes, BALLOON_F.MUST_TELL_HOST) ? 512 * PAGE_BYTES : 0,
    },
  });
});

inEachOrder('limits belong to the VM, whichever of its devices comes or goes', async (t) => {
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

inEachOrder('the word of an operator outlives a power cycle of the VM', async (t) => {
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

const WORDS: Readonly<Record<string, { give: (fleet: VmFleet) => Promise<unknown>; holds: object }>> = {
  target: {
    give: (fleet) => fleet.control.setTarget(NAME, { balloonBytes: MIB }),
    holds: { balloon: { targetBytes: MIB }, policy: { mode: 'manual' } },
  },
  inhibit: { give: (fleet) => fleet.control.setInhibited(NAME, 'backup'), holds: { inhibited: 'backup' } },
  'pause of the policy': {
    give: (fleet) => fleet.control.changePolicy({ paused: true, vm: NAME }),
    holds: { policy: { mode: 'manual' } },
  },
};
for (const [word, { give, holds }] of Object.entries(WORDS)) {
  inEachOrder(`${word}: the order alone outlives a power cycle of the VM`, async (t) => {
    const { fleet, connect, gone } = wire(t);
    await connect('balloon');
    await give(fleet);
    t.match(fleet.control.find(NAME), holds);
    await gone();
    await connect('balloon');
    t.match(fleet.control.find(NAME), holds);
  });
}

/** A host whose policy records its readings. */
function traced(t: Test, vm: ConfigFile['vm'] = []): Wire & { firstReading: () => Promise<TraceVm> } {
  const record = join(temporaryFolder(t), 'trace.ndjson');
  const wired = wire(t, { policy: { mode: 'observe', interval: 0.1, record }, vm });
  const lines = (): string[] => (existsSync(record) ? readFileSync(record, 'utf8').split('\n') : []);
  return {
    ...wired,
    firstReading: async () => {
      await eventually(
        () => lines().length > 1,
        () => 'the policy looks',
      );
      const { vms } = JSON.parse(lines()[0] ?? '') as TraceLine;
      const [vm] = vms;
      if (vm?.name !== NAME) throw new Error('the policy sees no VM');
      return vm;
    },
  };
}

inEachOrder('the policy sees a shared cgroup where it is allowed', async (t) => {
  const { tree, fleet, connect, firstReading } = traced(t, [{ match: '*', 'shared-cgroup': true }]);
  tree.process(77, CGROUP);
  tree.memory(CGROUP, { current: 3 * MIB });
  await connect('balloon');
  t.match(fleet.control.find(NAME)?.cgroup, { path: CGROUP });
  fleet.startPolicy();
  t.match(await firstReading(), { currentBytes: 3 * MIB });
});

inEachOrder('a request for a VM looks at the whole of it once', async (t) => {
  const { fleet, connect } = wire(t);
  await connect('balloon');
  const socketPath = join(temporaryFolder(t), 'control.sock');
  const log: Refusal[] = [];
  const refused = (refusal: Refusal): void => void log.push(refusal);
  const server = await startControlServer(
    socketPath,
    fleet.control,
    new MemoryEvents(),
    '0',
    new MemoryDaemon(),
    refused,
  );
  t.teardown(() => server.close());
  let views = 0;
  const whole = Object.getOwnPropertyDescriptor(VmLimits.prototype, 'view')?.value as () => VmView['cgroup'];
  t.teardown(() => (VmLimits.prototype.view = whole));
  VmLimits.prototype.view = function (this: VmLimits) {
    views++;
    return whole.call(this);
  };
  const answer = await new ControlClient(socketPath).setTarget(NAME, { balloonBytes: MIB });
  t.match(answer, { name: NAME, balloon: { targetBytes: MIB } });
  t.equal(views, 1, 'the answer is the one view');
});

inEachOrder('limits and the policy go by one search for the cgroup', async (t) => {
  const { tree, fleet, connect, firstReading } = traced(t);
  tree.memory(CGROUP, { current: 3 * MIB });
  await connect('balloon');
  t.match(fleet.control.find(NAME)?.cgroup, { path: CGROUP, currentBytes: 3 * MIB });
  // A second search would find another.
  tree.process(process.pid, '/vms/moved');
  tree.memory('/vms/moved', { current: 5 * MIB });
  fleet.startPolicy();
  const { currentBytes } = await firstReading();
  t.equal(currentBytes, fleet.control.find(NAME)?.cgroup?.currentBytes, 'both see the same');
});

inEachOrder('a cgroup has one pressure trigger, whoever waits for it', async (t) => {
  const { tree, fleet, connect, firstReading } = traced(t);
  tree.link(`cgroup${CGROUP}/memory.pressure`, PRESSURE);
  const triggers = (): number => {
    const open = readdirSync('/proc/self/fd').map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return null;
      }
    });
    return open.filter((path) => path === PRESSURE).length;
  };
  t.equal(triggers(), 0);
  await connect('balloon');
  await fleet.control.setLimits(NAME, { high: 'follow' });
  t.equal(triggers(), 1, 'for the limit');
  fleet.startPolicy();
  await firstReading();
  t.equal(triggers(), 1, 'and for the policy');
  await fleet.control.setLimits(NAME, { high: 'restore' });
  t.equal(triggers(), 1, 'the policy still waits');
});

inEachOrder('the open files of a VMM are searched once for all of its devices', async (t) => {
  const { tree, fleet, events, connect } = wire(t);
  await connect('balloon');
  await connect('cache-balloon');
  tree.write(`proc/${process.pid}/fd/0`, '');
  tree.link(`proc/${process.pid}/fd/9`, '/dev/vfio/7');
  const pinned = 'the VMM has /dev/vfio/7 open, which pins guest memory';
  await eventually(
    () => fleet.control.find(NAME)?.inhibited === pinned,
    () => `inhibited: ${String(fleet.control.find(NAME)?.inhibited)}`,
  );
  t.equal(events.filter(({ event }) => event === 'inhibited').length, 1, 'found once');
});

void t.test('doctor goes by the code of a verdict, whatever its words say', (t) => {
  const vmm = { kind: 'QEMU', version: '11.1.0', obstacle: null } as const;
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
  const limits = { ...byName(() => null), mayUseBytes: 0, problem: 'no words: open them' };
  t.same(
    checks({
      limits: { ...limits, diagnosis: { code: 'limits-refused', text: 'no words', remedy: 'open them' } },
    }),
    ['limits: open them'],
  );
  t.end();
});
