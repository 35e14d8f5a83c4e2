// What a daemon that was killed leaves of a session: its state file and its file descriptors.
import { fstatSync, readSync } from 'node:fs';
import { deviceOptions } from '../../src/daemon/settings.js';
import type { DeviceOptions, OfferableFeature } from '../../src/vm/kinds.js';
import { StateFile } from '../../src/memory/state-file.js';
import { fileOffset } from '../../src/os/fd.js';
import { socketPair } from '../../src/os/socket.js';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from '../support/balloon-driver.js';
import { Frontend, QEMU_PROTOCOL_FEATURES } from '../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { F_RING_PACKED } from '../support/guest-ring.js';
import { pfns, serveDevice } from '../support/served-vm.js';
import { ANY_VMM } from '../support/vmm-orders.js';
import { bits, PROTOCOL_F, REQUEST, u64s } from '../support/wire.js';
import { createMemfd } from '../../src/os/memfd.js';
import { closeFd } from '../../src/os/fd.js';
import { turns, until } from './fuzzer.js';
import { NamedFds } from './named-fds.js';

/** How far a session came before its daemon was killed. */
export type Stage = 'connected' | 'running' | 'packed' | 'stopped' | 'logging';
export const STAGES: readonly Stage[] = ['connected', 'running', 'packed', 'stopped', 'logging'];

/** No process has it, so that nothing is learnt of the "VMM" by looking at this very process. */
const NOBODY = 2 ** 22 + 1;
const RAM_BYTES = 8 * 2 ** 20;
const FIRST_PFN = 1024;
const PAGES = 512;

export const IDENTITY: { name: string; pid: number; options: DeviceOptions } = {
  name: 'left',
  pid: NOBODY,
  options: {
    ...deviceOptions({}, null, 'left'),
    features: [
      ...deviceOptions({}, null, 'left').features,
      'VIRTIO_F_RING_PACKED' satisfies OfferableFeature,
    ],
    statsIntervalSeconds: 0,
  },
};

export interface LeftSession {
  bytes: Uint8Array;
  offset: number;
  fds: NamedFds;
  /** The name of its connection. */
  connection: string;
}

/** Serves a session up to that stage, and takes down what there is then. */
export async function leaveSession(stage: Stage): Promise<LeftSession> {
  const [ours, theirs] = socketPair();
  const fds = new NamedFds();
  const state = StateFile.create();
  fds.keep(ours);
  const connection = fds.nameOf(ours) ?? '';
  let ended = false;
  const handOver = { keeper: fds, state, found: null };
  const { vm } = serveDevice(ours, IDENTITY, handOver, nothing, () => (ended = true));
  const frontend = new Frontend({
    order: ANY_VMM,
    socket: theirs,
    ram: GuestRam.likeQemu(RAM_BYTES, { lowBytes: RAM_BYTES / 2 }),
    protocolFeatures: QEMU_PROTOCOL_FEATURES | bits(PROTOCOL_F.STATUS),
  });
  await frontend.connect();
  vm.setTarget({ memoryBytes: RAM_BYTES / 2 });
  if (stage !== 'connected') await run(stage, frontend);
  await turns(20);
  const bytes = new Uint8Array(fstatSync(state.fd).size);
  readSync(state.fd, bytes, 0, bytes.length, 0);
  const left = { bytes, offset: fileOffset(state.fd), fds, connection };
  frontend.close();
  await until(() => ended, 'the session ends');
  return left;
}

async function run(stage: Stage, frontend: Frontend): Promise<void> {
  const packed = stage === 'packed' ? bits(F_RING_PACKED) : 0n;
  const features = LINUX_FEATURES | packed | bits(BALLOON_F.PAGE_POISON);
  const driver = await BalloonDriver.start(frontend, { features, areaGpa: PAGE_BYTES });
  await driver.inflate(pfns(FIRST_PFN, PAGES));
  await driver.deflate(pfns(FIRST_PFN, PAGES / 4));
  if (stage === 'logging') {
    const log = createMemfd('log', PAGE_BYTES);
    await frontend.ask(REQUEST.SET_LOG_BASE, u64s(BigInt(PAGE_BYTES), 0n), [log]);
    closeFd(log);
  }
  if (stage === 'stopped') await frontend.stop();
}

function nothing(): void {
  // Events are for operators.
}
