// A state file is gone on with only when it says what it said.
import { fstatSync, readSync } from 'node:fs';
import t from 'tap';
import { StateError, StateFile } from '../../src/memory/state-file.js';
import { closeFd, fileOffset } from '../../src/os/fd.js';
import { StateImage } from '../fuzz/state-image.js';

const RECORD = JSON.stringify({ version: 1, name: 'vm' });
const UNIT = 4096;

/** With a record, a message acted upon and a reply of 100 bytes. */
function image(): StateImage {
  const file = StateFile.create();
  file.stage(RECORD);
  file.commit(12, new Uint8Array(100).fill(7));
  file.taken();
  const bytes = new Uint8Array(fstatSync(file.fd).size);
  readSync(file.fd, bytes, 0, bytes.length, 0);
  const made = new StateImage(bytes, fileOffset(file.fd));
  file.close();
  return made;
}

function refused(change: (image: StateImage) => void, message: RegExp): void {
  const changed = image();
  change(changed);
  const fd = changed.open();
  t.throws(() => StateFile.open(fd), { name: 'StateError', message });
  closeFd(fd);
}

void t.test('as it was left', (t) => {
  const file = StateFile.open(image().open());
  t.equal(file.record(), RECORD);
  t.same([file.unsentBytes, file.untaken], [100, 0]);
  file.close();
  t.end();
});

void t.test('changed', (t) => {
  refused((state) => (state.bytes = state.bytes.slice(0, UNIT)), /a state file of 4096 bytes/);
  refused((state) => state.bytes.fill(0, 0, 4), /not a state file/);
  refused((state) => state.bytes.fill(9, 4, 8), /start that balloond again/);
  // Of the slot in use and of its record, by a single bit.
  const slot = 128 + 64 * ((image().bytes[64] ?? 0) & 1);
  for (const at of [slot, slot + 4, slot + 8, slot + 20]) {
    refused(({ bytes }) => (bytes[at] = (bytes[at] ?? 0) ^ 1), /its checksum is wrong/);
  }
  const at = image().field('recordAt');
  refused(({ bytes }) => (bytes[at + 5] = (bytes[at + 5] ?? 0) ^ 1), /its record's checksum is wrong/);
  refused((state) => state.setField('recordAt', 8192), /a record of \d+ bytes at 8192/);
  refused((state) => state.setField('consumeBytes', 2 ** 20), /a message of 1048576 bytes/);
  refused((state) => state.setField('outEnd', 2 ** 31), /replies up to/);
  refused((state) => (state.offset = UNIT), /its offset is before the replies/);
  refused(({ bytes }) => new Float64Array(bytes.buffer, 384, 1).fill(-1), /totals that are no numbers/);
  t.end();
});

void t.test('an area is in the file, behind its head, and nobody else has it', (t) => {
  const first = StateFile.create();
  const areas = [first.allocate(4 * UNIT), first.allocate(2 * UNIT)] as const;
  const [{ offset }, { offset: second }] = areas;
  const bytes = new Uint8Array(fstatSync(first.fd).size);
  readSync(first.fd, bytes, 0, bytes.length, 0);
  const file = StateFile.open(new StateImage(bytes, fileOffset(first.fd)).open());
  first.close();
  file.claim(areas[0]);
  for (const [at, lenBytes] of [
    [offset, 4 * UNIT],
    [offset + UNIT, UNIT],
    [offset + 3 * UNIT, 2 * UNIT],
    [offset - UNIT, UNIT],
    [0, UNIT],
    [second, 3 * UNIT],
    [second, 0],
    [second + 1, UNIT],
    [second, 100],
  ] as const) {
    t.throws(() => file.claim({ offset: at, lenBytes }), StateError, `${lenBytes} bytes at ${at}`);
  }
  t.same(file.claim(areas[1]), areas[1]);
  file.close();
  t.end();
});
