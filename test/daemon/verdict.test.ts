import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Absence } from '../../src/vm/absence.js';
import { createEventFd } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { diagnose, sentence, type Symptoms } from '../../src/vm/diagnosis.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { BALLOON_F } from '../support/balloon-driver.js';
import { NEXT_STEP } from '../support/next-step.js';
import { ServedVm } from '../support/served-vm.js';
import { QEMU } from '../support/vmm-orders.js';
import { bits, readU64, REQUEST, u64s, VHOST_USER_F_PROTOCOL_FEATURES } from '../support/wire.js';

const MIB = 2 ** 20;
const healthy: Symptoms = {
  problem: null,
  state: 'running',
  driver: 'virtio_balloon',
  obstacle: () => null,
  connectedMs: 1_000_000,
  stillMs: 1_000_000,
  ramBytes: 2048 * MIB,
  toldBytes: 2000 * MIB,
  leastBytes: 64 * MIB,
  discardableBytes: 2048 * MIB,
  tookBackBytes: 0,
  overshotBytes: 0,
  awayMs: 0,
  toLeave: null,
  deflatesOnOom: true,
  targetBytes: 512 * MIB,
  actualBytes: 512 * MIB,
  actualUnknown: false,
  heldBytes: 512 * MIB,
  guestFreeBytes: 24 * MIB,
  answered: true,
  statsAgeMs: 5000,
  statsIntervalMs: 10_000,
  throttled: false,
  pinnedBy: null,
  absence: null,
  unknownQueues: [],
  silentRings: false,
};
const STOPPED = { code: 'ring-stopped', text: 'ring 0 is stopped', remedy: 'reload it' } as const;
/** Half of what it should give. */
const short: Symptoms = { ...healthy, actualBytes: 256 * MIB, heldBytes: 256 * MIB };

function verdict(symptoms: Symptoms): string | null {
  const diagnosis = diagnose(symptoms);
  return diagnosis && sentence(diagnosis);
}

/** How the verdicts begin that docs/operating.md explains, or what stands in their middle. */
const [, TABLE = ''] = readFileSync(join(import.meta.dirname, '../../../docs/operating.md'), 'utf8').split(
  '## What each verdict means',
);
const EXPLAINED = [...TABLE.matchAll(/^\| `([^`]+)` +\|/gm)].map(([, words = '']) =>
  words.split('…').map((part) => part.trim()),
);

function says(change: Partial<Symptoms>, what: RegExp, from = healthy): void {
  const said = verdict({ ...from, ...change }) ?? '';
  t.match(said, what);
  if (change.problem !== undefined) return;
  t.match(said, NEXT_STEP);
  t.ok(
    EXPLAINED.some((parts) => parts.every((part) => said.includes(part))),
    `docs/operating.md explains: ${said}`,
  );
}

void t.test('nothing is said of a VM that is well, or has had little time', (t) => {
  t.equal(verdict(healthy), null);
  t.equal(verdict({ ...short, stillMs: 1000 }), null);
  t.equal(verdict({ ...short, stillMs: 1000, answered: false }), null);
  t.equal(verdict({ ...healthy, state: 'connected', connectedMs: 1000 }), null);
  t.equal(verdict({ ...healthy, state: 'stopped', targetBytes: 0, actualBytes: 0 }), null);
  t.equal(verdict({ ...healthy, discardableBytes: null }), null, 'it is not known how much memory it has');
  t.equal(verdict({ ...healthy, discardableBytes: 2020 * MIB }), null, 'a little less');
  t.equal(verdict({ ...healthy, answered: false }), null, 'the target was there before');
  t.equal(verdict({ ...healthy, statsAgeMs: 30_000 }), null);
  t.equal(verdict({ ...healthy, statsAgeMs: null }), null, 'no statistics are asked for');
  t.end();
});

void t.test('each trouble has a sentence that says what to do', (t) => {
  says({ problem: STOPPED }, /^ring 0 is stopped: reload it$/);
  says({ state: 'connected' }, /no guest driver.*has virtio_balloon .*kernel log/);
  says(
    { state: 'connected', driver: 'the virtio_balloon of guest/virtio_balloon' },
    /no guest driver.*has the virtio_balloon of /,
  );
  says(
    { state: 'connected', obstacle: () => 'own-balloon' },
    /no guest driver.*QEMU's own balloon has free page reporting.*: start QEMU without/,
  );
  says({ state: 'connected', obstacle: () => 's390x' }, /no guest driver.*one interrupt vector.*: take the /);
  says({ silentRings: true }, /share=on/);
  says({ pinnedBy: '/dev/vfio/12' }, /has \/dev\/vfio\/12 open.*pins.*detached/);
  says({ throttled: true }, /keeps the daemon so busy/, short);
  says({ targetBytes: 0 }, /stays at 512.*kernel log/);
  says({}, /out of puff at 256.* of 512.*24.*free.*a balloon of 256 MiB at most/, short);
  says({ guestFreeBytes: null }, /out of puff at 256.* of 512 MiB: set a balloon of 256 MiB at most/, short);
  says({ answered: false, statsAgeMs: 1000 }, /out of puff at 256/, short);
  says({ answered: false, statsAgeMs: 2_000_000 }, /never answered/, short);
  says({ guestFreeBytes: 900 * MIB }, /stopped at 256.* of 512.* with 900 MiB free.*kernel log/, short);
  says({ targetBytes: 2040 * MIB }, /would leave.*8 MiB of 2 GiB.*at most/, short);
  says(
    { state: 'stopped' },
    /paused, its guest sleeps, or its .*driver stopped; .*held 256 MiB.*512 MiB waits: run virsh resume.* dompmwakeup/,
    short,
  );
  says(
    { tookBackBytes: 64 * MIB },
    /ran out of memory and took 64 MiB.*256 MiB of 512 MiB: set a balloon of 256 MiB/,
    short,
  );
  const adopted = { ...short, toLeave: 'run balloonctl adopt --release for it' } as const;
  const byOther =
    /another program moved the balloon to 256 MiB, away from the target of 512 MiB.*: end the program/;
  says(
    { tookBackBytes: 64 * MIB },
    /took 64 MiB.*, unless another program moved the balloon: set a/,
    adopted,
  );
  says({ tookBackBytes: 64 * MIB, deflatesOnOom: false }, byOther, adopted);
  says(
    { overshotBytes: 64 * MIB, targetBytes: 128 * MIB },
    /to 256 MiB, away from the target of 128/,
    adopted,
  );
  const early = { ...adopted, stillMs: 3000, tookBackBytes: 64 * MIB, deflatesOnOom: false };
  t.equal(verdict(early), null, 'it was not at rest, or may come back');
  t.equal(verdict({ ...early, awayMs: 1500 }), null);
  says({ awayMs: 2500 }, byOther, early);
  t.equal(verdict({ ...early, awayMs: 2500, actualBytes: 0 }), null, 'its driver may have been unloaded');
  t.equal(verdict({ ...early, awayMs: 2500, deflatesOnOom: true }), null, 'a guest may do so');
  t.equal(verdict({ ...early, awayMs: 2500, toLeave: null }), null, 'no other program can');
  const emptied = { ...adopted, actualBytes: 0, tookBackBytes: 256 * MIB, deflatesOnOom: false };
  says({}, /another program moved the balloon to 0 B/, emptied);
  t.equal(verdict({ ...emptied, statsAgeMs: 12_000 }), null, 'its driver may have been unloaded');
  says({ statsAgeMs: 31_000 }, /no statistics for 31 s/, emptied);
  says(
    { discardableBytes: 1024 * MIB },
    /only 1 GiB of the 2 GiB .*: give the VM memory-backend-ram,share=on/,
  );
  says({ toldBytes: 2560 * MIB }, /only 2 GiB of the 2.5 GiB .*: give the VM memory-backend-ram,share=on/);
  says({ answered: false, guestFreeBytes: 900 * MIB }, /never answered the target of 512 MiB.*reload/, short);
  says({ heldBytes: 512 * MIB }, /holds 512 MiB.*never acks.*256 MiB.*update/, short);
  const unknown = { actualUnknown: true, actualBytes: 0, heldBytes: 0 };
  says(
    { ...unknown, answered: false, guestFreeBytes: 900 * MIB },
    /never answered the target of 512 MiB.*reload/,
  );
  says(unknown, /moves pages in and out of its balloon but never acks that \(actual stays unknown\).*update/);
  says(
    { ...unknown, state: 'stopped' },
    /paused, its guest sleeps, or its .*driver stopped; .*held an unknown amount/,
  );
  says({ statsAgeMs: 31_000 }, /no statistics for 31 s.*every 10 s.*reload/);
  t.end();
});

void t.test('what docs/operating.md explains is said somewhere', (t) => {
  const folder = join(import.meta.dirname, '../../..', 'src');
  const vm = readdirSync(join(folder, 'vm')).map((name) => join('vm', name));
  const sources = [...vm, 'vhost-user/ring-place.ts']
    .map((path) => readFileSync(join(folder, path), 'utf8'))
    .join('\n');
  t.ok(EXPLAINED.length > 15);
  for (const part of EXPLAINED.flat()) t.ok(sources.includes(part), part);
  t.end();
});

const NONE = { refilledBytes: 0, pinnedBytes: 0, usedBytes: 0, look: () => undefined };

/** What is said of pages that should be absent, once that lasts. */
function absence(change: Partial<typeof NONE>, tellsFirst: boolean, inhibited = false): Symptoms['absence'] {
  const absence = new Absence({ ...NONE, ...change, tellsFirst, inhibited }, () => undefined, 0);
  absence.look();
  return absence.diagnosis();
}

void t.test('discarded memory that is on the host all the same', (t) => {
  const back = { refilledBytes: 5 * MIB };
  says({ absence: absence(back, true) }, /^5 MiB .*on the host again, as often as.*look for/);
  says({ absence: absence(back, false) }, /^5 MiB .*may use them before it tells: set the balloon/);
  says({ absence: absence({ pinnedBytes: MIB }, true) }, /^1 MiB .*pins the huge pages.*look for io_uring/);
  says({ absence: absence({ usedBytes: MIB }, true) }, /uses pages.*: restart the guest if kexec/);
  t.equal(verdict({ ...healthy, absence: absence(back, true, true) }), null, 'wanted, while inhibited');
  t.equal(verdict({ ...healthy, absence: absence({}, true) }), null);
  says({ absence: absence({ pinnedBytes: MIB }, true) }, /out of puff/, short);
  says({ absence: absence({ usedBytes: MIB }, true) }, /uses pages/, short);
  t.end();
});

void t.test('what is wrong with the VM comes before what follows from it', (t) => {
  says({ problem: STOPPED, statsAgeMs: 60_000 }, /^ring 0 is stopped: reload it$/, short);
  says({ pinnedBy: '/dev/vfio/12', statsAgeMs: 60_000 }, /pins/, short);
  says({ answered: false, statsAgeMs: 60_000, guestFreeBytes: 900 * MIB }, /never answered/, short);
  t.end();
});

eachOrder({ features: bits(BALLOON_F.STATS_VQ) })('statistics of a served VM that cease', async (t) => {
  const { served, driver } = await ServedVm.running({ statsIntervalSeconds: 0.1 });
  await driver.waitStatsRequests(2);
  t.equal(served.view.verdict, null);
  driver.ring('stats').onCall = null;
  await served.until(({ verdict: said }) => said !== null, 'it is noticed');
  t.match(served.view.verdict, /no statistics/);
  await served.close();
});

void t.test('QEMU: a driver without a queue of a feature that it acked', async (t) => {
  says({ unknownQueues: [2, 3] }, /did not set up all of their queues.* of queues 2, 3, and.*: load another/);
  t.equal(verdict({ ...healthy, unknownQueues: [2], stillMs: 20_000 }), null, 'it may yet set them up');
  const { served } = await ServedVm.running({
    statsIntervalSeconds: 1,
    frontend: { order: QEMU },
    driver: { without: ['reporting'] },
  });
  await sleep(31_000);
  t.match(served.view.verdict, /of queues 2, 3, and no statistics/);
  await served.close();
});

void t.test('QEMU: a device with too few queues', async (t) => {
  const served = new ServedVm({ frontend: { order: QEMU, queueCount: 3 } });
  await served.frontend.connect();
  await served.until(({ verdict: said }) => said !== null, 'it is noticed');
  t.match(served.view.verdict, /3 virtqueues.*need 7.*num_vqs=7/);
  await served.close();
});

inEachOrder(
  'queues that are named when the features are acked are those that the driver set up',
  async (t) => {
    const served = new ServedVm();
    const { frontend } = served;
    // cloud-hypervisor and crosvm have all five, and name the two that their guest's features need.
    await frontend.tell(REQUEST.SET_OWNER);
    frontend.offeredFeatures = readU64(await frontend.ask(REQUEST.GET_FEATURES));
    await frontend.tell(REQUEST.SET_FEATURES, u64s(bits(VHOST_USER_F_PROTOCOL_FEATURES)));
    const events = [createEventFd(), createEventFd()];
    for (const [index, fd] of events.entries()) {
      await frontend.tell(REQUEST.SET_VRING_CALL, u64s(BigInt(index)), [fd]);
    }
    await new Promise((resolve) => setTimeout(resolve, 1200));
    t.same([served.view.verdict, served.saw('too-few-queues')], [null, []]);
    events.forEach(closeFd);
    await served.close();
  },
);

inEachOrder('a VMM that is slow to name its queues has enough in the end', async (t) => {
  const { served } = await ServedVm.running();
  served.device.queuesSettled(1);
  t.match(served.view.verdict, 'num_vqs=7');
  served.device.queuesSettled(5);
  t.equal(served.view.verdict, null);
  await served.close();
});
