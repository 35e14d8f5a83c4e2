import t from 'tap';
import { moveWords, standingWords } from '../../src/policy/working-set-words.js';
import { UNSIZED, type SizeState } from '../../src/policy/working-set.js';
import { MIB } from './world.js';

function standing(state: Partial<SizeState>, kind: 'settled' | 'waits' = 'settled'): string {
  return standingWords({ ...UNSIZED, signal: 'reclaim', ...state }, { kind }, 412 * MIB, 100);
}

void t.test('where a size stands, with the last probe and the stream beside it', (t) => {
  t.equal(standing({}), 'at its working set: 412 MiB');
  const probed = { probedSeconds: 88, probedBytes: 8 * MIB, broughtBytes: 31 * MIB };
  t.equal(
    standing({ ...probed, streamRate: 64 * MIB, streamUntil: 101 }),
    'at its working set: 412 MiB, probed 12 s ago, a step of 8 MiB brought 31 MiB of reading, beside a stream of 64 MiB a second',
  );
  t.end();
});

void t.test('each figure that a guest does not send is named, with what stands in for it', (t) => {
  t.equal(
    standing({ signal: 'reads' }),
    'at its working set: 412 MiB; its guest does not tell of reclaim, so the reads of its VMM stand in for it',
  );
  t.equal(
    standing({ signal: 'none', missing: ['available', 'caches', 'deflate-on-oom'] }),
    'at its working set: 412 MiB; its guest does not tell of reclaim, so its page cache is left to it; ' +
      'its guest does not tell of available memory, so its free memory and page cache stand in for it; ' +
      'its guest does not tell of page cache, so available memory that is not free stands in for it; ' +
      'its driver gives no pages back when its guest runs out of memory, so more memory is left to the guest',
  );
  for (const [lacks, words] of [
    ['statistics', 'its guest sends no statistics'],
    ['free', 'its guest does not say how much of its memory is free'],
  ] as const) {
    const why = { kind: 'blind', lacks } as const;
    t.equal(standingWords(UNSIZED, why, 412 * MIB, 100), `its size stays at 412 MiB, because ${words}`);
    t.equal(moveWords(why), `${words}, so the last step is given back`);
  }
  t.end();
});
