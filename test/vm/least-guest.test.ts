import t from 'tap';
import { leastGuestBytes } from '../../src/vm/least-guest.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** RAM; what the kernel keeps and does not count; what the guest is left with. */
const ROWS: readonly (readonly [ram: number, kernel: number, least: number])[] = [
  [16 * MIB, 0, 4 * MIB],
  [128 * MIB, 0, 32 * MIB],
  [256 * MIB, 0, 64 * MIB],
  [4 * GIB, 0, 64 * MIB],
  [16 * GIB, 0, 256 * MIB],
  [1024 * GIB, 0, 16 * GIB],
  [4 * GIB, 100 * MIB, 164 * MIB],
  [4 * GIB, 100 * MIB + 1, 164 * MIB + 4096],
  [16 * MIB, 15 * MIB, 16 * MIB],
];

void t.test('a guest keeps a part of its memory, and what its kernel keeps beside it', (t) => {
  for (const [ram, kernel, least] of ROWS) t.equal(leastGuestBytes(ram, kernel), least, `${ram} + ${kernel}`);
  t.end();
});
