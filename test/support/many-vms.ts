// Several real guests on one socket of one daemon.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { boot, MIB, startDaemon } from './e2e.js';
import type { Guest } from './lab/guest.js';

/** Boots `count` VMs two by two, inflates all their balloons at once, and kills one of the VMs in the middle of it. */
export async function manyVms(t: Test, count: number): Promise<void> {
  const daemon = await startDaemon(t);
  const names = Array.from({ length: count }, (_, n) => `vm-${n}`);
  const guests: Guest[] = [];
  for (let n = 0; n < count; n += 2) {
    const pair = names.slice(n, n + 2);
    guests.push(...(await Promise.all(pair.map((name) => boot(t, daemon, name, { memoryMib: 256 })))));
  }
  t.same((await daemon.list()).map(({ name }) => name).sort(), names);
  await Promise.all(names.map((name) => daemon.ok('set', name, '--balloon', '100M')));
  await sleep(100);
  await guests[3]?.kill();
  for (const [n, name] of names.entries()) {
    if (n === 3) continue;
    await daemon.until(name, ({ balloon }) => balloon.actualBytes === 100 * MIB, `${name} inflated`, 120_000);
  }
  t.equal((await daemon.list()).length, count - 1, 'the killed one is gone');
  t.same(
    (await daemon.events()).filter(({ level }) => level === 'error').map(({ event }) => event),
    [],
  );
}
