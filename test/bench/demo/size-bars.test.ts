import t from 'tap';
import { sizeBars } from '../../../bench/demo/size-bars.js';
import { plain } from '../../../bench/demo/terminal.js';

void t.test('bars are as long as the memory, and never longer than all of it', (t) => {
  const point = { streamMibPerSecond: 1, damagedPages: 0 };
  const lines = sizeBars(
    {
      contender: 'page cache',
      floorMib: 0,
      points: [
        {
          ...point,
          workingSetMib: 64,
          settledMib: 256,
          streamMib: { median: 512, least: 512, most: 512 },
        },
        {
          ...point,
          workingSetMib: 128,
          settledMib: 1100,
          streamMib: { median: 900, least: 0, most: 900 },
        },
      ],
    },
    1024,
    plain,
  );
  t.match(lines[2], /^ {6}64 MiB │█{13}░{13} {26} 256 \(512\) MiB$/);
  t.match(lines[3], /^ {5}128 MiB │█{52} 1100 \(900\) MiB$/);
  t.end();
});
