// Writes down what a daemon that is killed leaves of a VM, as this build lays it out, for builds to come:
//   npm run build && node out/test/daemon/states/freeze.js
// makes test/daemon/states/vN-split.json and vN-packed.json, where N is the version of the record. Run it before the
// version changes, never after; resume.test.ts goes on with all that are there.
import { fstatSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync } from 'node:zlib';
import { deviceOptions } from '../../../src/daemon/settings.js';
import type { OfferableFeature } from '../../../src/vm/kinds.js';
import { vmView } from '../../../src/vm/view.js';
import { decodeVmRecord } from '../../../src/vm/record.js';
import { StateFile } from '../../../src/memory/state-file.js';
import { fileOffset } from '../../../src/os/fd.js';
import { socketPair } from '../../../src/os/socket.js';
import { NamedFds } from '../../fuzz/named-fds.js';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from '../../support/balloon-driver.js';
import { Frontend } from '../../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../../support/guest-ram.js';
import { F_RING_PACKED } from '../../support/guest-ring.js';
import { pfns, serveDevice } from '../../support/served-vm.js';
import { ANY_VMM } from '../../support/vmm-orders.js';
import { bits, u32s } from '../../support/wire.js';
import { STATES, type FrozenVm } from './frozen-vm.js';

/** No process has it, so that nothing is learnt of the "VMM" by looking at this very process. */
const NOBODY = 2 ** 22 + 1;
const REGION_BYTES = 4 * 2 ** 20;
const HIGH_GPA = 2 ** 32;
/** Numbers of pages: in the balloon, of them taken back, and what waits in rings that nobody has kicked. */
const INFLATED = pfns(HIGH_GPA / PAGE_BYTES, 512);
const DEFLATED = INFLATED.slice(0, 128);
const OFFERED = { inflate: pfns(HIGH_GPA / PAGE_BYTES + 600, 100), deflate: INFLATED.slice(128, 160) };
/** Filled, so that a discard shows: one that is offered, and one that is the guest's. */
const GIVEN_PFN = OFFERED.inflate[0] ?? 0;
const KEPT_PFN = HIGH_GPA / PAGE_BYTES + 800;
const TARGET_BYTES = 700 * PAGE_BYTES;
const BUFFERS_GPA = 2 * 2 ** 20;

async function freeze(format: 'split' | 'packed'): Promise<FrozenVm> {
  const [ours, theirs] = socketPair();
  const fds = new NamedFds();
  const state = StateFile.create();
  fds.keep(ours);
  const packed: readonly OfferableFeature[] = format === 'packed' ? ['VIRTIO_F_RING_PACKED'] : [];
  const defaults = deviceOptions({}, null, 'frozen');
  const options = { ...defaults, features: [...defaults.features, ...packed], statsIntervalSeconds: 0 };
  const identity = { name: 'frozen', pid: NOBODY, options };
  const { vm } = serveDevice(
    ours,
    identity,
    { keeper: fds, state, found: null },
    () => undefined,
    () => undefined,
  );
  const ram = new GuestRam([
    { gpa: 0, lenBytes: REGION_BYTES },
    { gpa: HIGH_GPA, lenBytes: REGION_BYTES },
  ]);
  const frontend = new Frontend({ socket: theirs, ram, order: ANY_VMM });
  await frontend.connect();
  const ring = format === 'packed' ? bits(F_RING_PACKED) : 0n;
  const driver = await BalloonDriver.start(frontend, {
    features: LINUX_FEATURES | ring | bits(BALLOON_F.PAGE_POISON),
  });
  vm.setTarget({ balloonBytes: TARGET_BYTES });
  await driver.inflate(INFLATED);
  await driver.deflate(DEFLATED);
  while (vmView(vm, null).balloon.pendingBytes > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  ram.fillPage(GIVEN_PFN, 1);
  ram.fillPage(KEPT_PFN, 1);
  for (const [n, role] of (['inflate', 'deflate'] as const).entries()) {
    const pages = OFFERED[role];
    ram.write(BUFFERS_GPA + n * PAGE_BYTES, u32s(...pages));
    driver.ring(role).add([{ gpa: BUFFERS_GPA + n * PAGE_BYTES, len: 4 * pages.length }]);
  }
  const bytes = new Uint8Array(fstatSync(state.fd).size);
  readSync(state.fd, bytes, 0, bytes.length, 0);
  const { balloon, features } = vmView(vm, null);
  const { version, connection, session } = decodeVmRecord(state.record());
  const frozen: FrozenVm = {
    version,
    connection,
    channel: session.channel,
    state: pack(bytes),
    stateOffset: fileOffset(state.fd),
    memory: session.regions.map(({ gpa, fd }) => ({
      fd,
      bytes: pack(ram.read(Number(gpa), REGION_BYTES)),
    })),
    eventFds: session.vrings
      .flatMap(({ kick, call, err }) => [kick, call, err])
      .filter((name) => name !== null),
    features: [...features],
    before: {
      targetBytes: balloon.targetBytes,
      actualBytes: balloon.actualBytes,
      inflatedBytesTotal: Number(balloon.inflatedBytesTotal),
      deflatedBytesTotal: Number(balloon.deflatedBytesTotal),
      discardedBytesTotal: Number(balloon.discardedBytesTotal),
    },
    offered: {
      inflateBytes: OFFERED.inflate.length * PAGE_BYTES,
      deflateBytes: OFFERED.deflate.length * PAGE_BYTES,
      givenPfn: GIVEN_PFN,
      keptPfn: KEPT_PFN,
    },
  };
  frontend.close();
  fds.close();
  return frozen;
}

function pack(bytes: Uint8Array): string {
  return brotliCompressSync(bytes).toString('base64');
}

for (const format of ['split', 'packed'] as const) {
  const frozen = await freeze(format);
  const path = join(STATES, `v${frozen.version}-${format}.json`);
  writeFileSync(path, `${JSON.stringify(frozen, null, 2)}\n`);
  console.log(path);
}
