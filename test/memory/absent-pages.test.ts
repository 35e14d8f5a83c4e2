// When what came back is discarded again, and when it is left alone: look by look.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Discarder } from '../../src/memory/discard.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { AbsentPages } from '../../src/memory/absent-pages.js';
import { PAGE_BYTES, type GuestRegion } from '../../src/memory/region.js';
import { allocatedBytes } from '../../src/os/file.js';
import { createMemfd } from '../../src/os/memfd.js';
import { eventually } from '../support/deadline.js';

const PAGES = 1024;
/** Pages in the balloon, from the first on. */
const GIVEN = 300;

interface Watched {
  readonly memory: GuestMemory;
  readonly region: GuestRegion;
  readonly absentPages: AbsentPages;
  /** The device; `asked` is called whenever the comparison asks whether it runs. */
  readonly device: {
    running: boolean;
    tellsFirst: boolean;
    inhibited: boolean;
    moved: number;
    asked: () => void;
  };
  /** Pages that the host has. */
  readonly held: () => number;
  readonly touch: (page: number, byte?: number) => void;
}

/** A device whose balloon is compared, with nothing of it on the host. */
async function watched(t: Test): Promise<Watched> {
  const memory = new GuestMemory();
  const description = { gpa: 0n, sizeBytes: BigInt(PAGES * PAGE_BYTES), userAddr: 0n, mmapOffset: 0n };
  const fd = createMemfd('ram', PAGES * PAGE_BYTES);
  const region = memory.add(description, fd);
  const discarder = new Discarder(memory, { quietMs: 0, longestMs: 0 }, () => undefined);
  const device = {
    running: true,
    tellsFirst: true,
    inhibited: false,
    moved: 0,
    asked: (): void => undefined,
  };
  const absentPages = new AbsentPages(memory, discarder, {
    running: () => {
      device.asked();
      return device.running;
    },
    tellsFirst: () => device.tellsFirst,
    inhibited: () => device.inhibited,
    moved: () => device.moved,
  });
  discarder.start();
  t.teardown(async () => {
    absentPages.forget();
    discarder.stop();
    await new Promise<void>((resolve) => {
      if (discarder.interrupt(resolve)) resolve();
    });
    memory.close();
  });
  region.ledger.inflateKept(0, GIVEN);
  const watched = {
    memory,
    region,
    absentPages,
    device,
    held: () => allocatedBytes(fd) / PAGE_BYTES,
    touch: (page: number, byte = 0) => region.mapping.write(page * PAGE_BYTES, Uint8Array.of(byte), 0, 1),
  };
  t.equal(absentPages.refilledBytes, null, 'nothing is known yet');
  await lookedUntil(watched, 0);
  return watched;
}

/** Waits until so many pages are said to be there again. */
async function found({ absentPages }: Watched, pages: number): Promise<void> {
  await eventually(
    () => absentPages.refilledBytes === pages * PAGE_BYTES,
    () => `${pages} pages are found, and not ${absentPages.refilledBytes}`,
    1,
  );
}

/** Looks until so many pages are said to be there. */
async function lookedUntil(watched: Watched, pages: number): Promise<void> {
  await eventually(
    () => {
      watched.absentPages.look();
      return watched.absentPages.refilledBytes === pages * PAGE_BYTES;
    },
    () => `${pages} pages are found, and not ${watched.absentPages.refilledBytes}`,
    1,
  );
}

/** Brings all of the balloon back, as a dump does. */
function touchAll(all: Watched): void {
  for (let page = 0; page < GIVEN; page++) all.touch(page);
}

/** Looks, and does something once the comparison has found what is there, before it reads that. */
function lookAnd({ absentPages, device }: Watched, meanwhile: () => void): { done: boolean } {
  const state = { done: false };
  absentPages.look();
  device.asked = () => {
    device.asked = () => undefined;
    meanwhile();
    state.done = true;
  };
  return state;
}

void t.test('what is found once is told, and what is found twice is discarded', async (t) => {
  const all = await watched(t);
  touchAll(all);
  all.absentPages.look();
  await found(all, GIVEN);
  t.equal(all.region.ledger.pending.size, 0, 'not at the first look');
  t.equal(all.held(), GIVEN);
  all.absentPages.look();
  await eventually(
    () => all.held() === 0,
    () => `${all.held()} pages are there`,
  );
  t.equal(
    all.absentPages.refilledBytes,
    GIVEN * PAGE_BYTES,
    'and is not said to be gone before that was looked at',
  );
});

void t.test('whether it helped is looked at next, however long the comparison took', async (t) => {
  const all = await watched(t);
  touchAll(all);
  all.absentPages.look();
  await found(all, GIVEN);
  const state = lookAnd(all, () => {
    // As if the balloon were in very many pieces.
    for (const end = performance.now() + 200; performance.now() < end;);
  });
  await eventually(
    () => all.held() === 0 && all.region.ledger.pending.size === 0,
    () => `${all.held()} pages are there`,
  );
  t.ok(state.done);
  all.absentPages.look();
  await found(all, 0);
});

void t.test('a page that holds something is in use, and nothing is discarded from then on', async (t) => {
  const all = await watched(t);
  touchAll(all);
  all.touch(GIVEN - 1, 7);
  await lookedUntil(all, GIVEN);
  await eventually(
    () => {
      all.absentPages.look();
      return all.absentPages.usedBytes > 0;
    },
    () => 'that is found out',
  );
  for (let n = 0; n < 20; n++) all.absentPages.look();
  t.equal(all.region.ledger.pending.size, 0);
  t.equal(all.held(), GIVEN);
  all.absentPages.startOver();
  t.equal(all.absentPages.usedBytes, 0);
  t.equal(all.absentPages.refilledBytes, null);
});

void t.test('what was taken back while it was compared is no page in use', async (t) => {
  const all = await watched(t);
  const { region, device, absentPages } = all;
  touchAll(all);
  absentPages.look();
  await found(all, GIVEN);
  const state = lookAnd(all, () => {
    region.ledger.deflate(10, 1);
    all.touch(10, 7);
    device.moved++;
  });
  await eventually(
    () => state.done,
    () => 'it is taken back',
  );
  await sleep(30);
  t.equal(absentPages.usedBytes, 0);
  const byte = new Uint8Array(1);
  region.mapping.read(10 * PAGE_BYTES, byte, 0, 1);
  t.equal(byte[0], 7, 'it stays the guest’s');
  await eventually(
    () => {
      absentPages.look();
      return all.held() === 1;
    },
    () => `${all.held()} pages are there, and the rest of the balloon is to go`,
  );
  region.mapping.read(10 * PAGE_BYTES, byte, 0, 1);
  t.equal(byte[0], 7);
});

void t.test('a device that stops is not compared to the end', async (t) => {
  const all = await watched(t);
  touchAll(all);
  all.absentPages.look();
  await found(all, GIVEN);
  all.absentPages.look();
  all.device.running = false;
  all.absentPages.look();
  all.absentPages.forget();
  t.equal(all.absentPages.refilledBytes, null);
  t.equal(all.region.ledger.pending.size, 0);
  t.equal(all.held(), GIVEN);
});
