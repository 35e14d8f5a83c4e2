// Recordings to draw.
import fc from 'fast-check';
import type { Recording } from '../../../bench/demo/recording.js';

export const MIB = 2 ** 20;

/** A VM that gives 1 GiB between 10 s and 20 s and uses it again at the end; its guest frees the rest at 5 s. */
export const GIVING: Recording = {
  samples: [
    { seconds: 0, hostBytes: 1536 * MIB, guestFreeBytes: 256 * MIB },
    { seconds: 5, hostBytes: 1536 * MIB, guestFreeBytes: 256 * MIB },
    { seconds: 5, hostBytes: 1536 * MIB, guestFreeBytes: 1920 * MIB },
    { seconds: 10, hostBytes: 1536 * MIB, guestFreeBytes: 1920 * MIB },
    { seconds: 20, hostBytes: 512 * MIB, guestFreeBytes: 896 * MIB },
    { seconds: 35, hostBytes: 512 * MIB, guestFreeBytes: 896 * MIB },
    { seconds: 36, hostBytes: 1536 * MIB, guestFreeBytes: 896 * MIB },
  ],
  marks: [
    { seconds: 10, text: 'set --balloon 1G & <wait>' },
    { seconds: 10.1, text: 'nothing' },
    { seconds: 35, text: 'used again' },
  ],
};

const bytes = fc.integer({ min: 0, max: 64 * 1024 * MIB });

export const anyRecording: fc.Arbitrary<Recording> = fc.record({
  samples: fc
    .array(
      fc.record({
        seconds: fc.double({ min: 0, max: 5000, noNaN: true }),
        hostBytes: bytes,
        guestFreeBytes: bytes,
      }),
    )
    .map((samples) => samples.sort((a, b) => a.seconds - b.seconds)),
  marks: fc
    .array(
      fc.record({ seconds: fc.double({ min: 0, max: 5000, noNaN: true }), text: fc.constant('something') }),
      {
        maxLength: 9,
      },
    )
    .map((marks) => marks.sort((a, b) => a.seconds - b.seconds)),
});
