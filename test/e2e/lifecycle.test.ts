// What happens to VMs around their balloon: reboots, crashes, company, and VMMs set up wrong.
import t from 'tap';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { manyVms } from '../support/many-vms.js';

void t.test('reboots, resets, pauses and a reloaded driver: the target survives', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'phoenix');
  const inflated = (what: string): Promise<unknown> =>
    daemon.until('phoenix', ({ balloon }) => balloon.actualBytes === 100 * MIB, what);
  await daemon.ok('set', 'phoenix', '--memory', '412M', '--wait');
  await guest.reboot();
  await inflated('after reboot');
  await guest.systemReset();
  await inflated('after system_reset');
  const before = guest.memfdAllocatedBytes();
  await guest.qmp('stop');
  await daemon.until('phoenix', ({ state }) => state === 'stopped', 'paused');
  await daemon.ok('set', 'phoenix', '--balloon', '120M');
  await guest.qmp('cont');
  const resumed = await daemon.until('phoenix', ({ state }) => state === 'running', 'goes on');
  t.ok(resumed.balloon.actualBytes >= 100 * MIB, 'a paused VM keeps its balloon');
  await daemon.until('phoenix', ({ balloon }) => balloon.actualBytes === 120 * MIB, 'a target set meanwhile');
  await daemon.until('phoenix', () => guest.memfdAllocatedBytes() <= before + 8 * MIB, 'it is discarded');
  await daemon.ok('set', 'phoenix', '--balloon', '100M', '--wait');
  t.equal((await guest.sh('rmmod virtio_balloon')).code, 0);
  await daemon.until(
    'phoenix',
    ({ state, balloon }) => state === 'stopped' && balloon.actualBytes === 0,
    'unloaded',
  );
  t.equal((await guest.sh('insmod /virtio_balloon.ko')).code, 0);
  await inflated('after the driver was loaded again');
  t.ok(await guest.eat(300), 'the guest lives');
});

void t.test('two and four VMs at once, and one killed in the middle of an inflate', (t) => manyVms(t, 4));

void t.test('a second VM of the same name is told apart', async (t) => {
  const daemon = await startDaemon(t);
  await boot(t, daemon, 'twin', { memoryMib: 256 });
  await boot(t, daemon, 'twin', { memoryMib: 256 });
  t.same((await daemon.list()).map(({ name }) => name).sort(), ['twin', 'twin-2']);
});

void t.test('too few queues: the exact fix is named, and the guest boots all the same', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'narrow', { memoryMib: 256, device: { numVqs: 3 } });
  const view = await daemon.until('narrow', ({ verdict }) => verdict !== null, 'a verdict');
  t.match(view.verdict, /num_vqs=7/);
  const events = (await daemon.events()).filter(({ vm }) => vm === 'narrow').map(({ event }) => event);
  t.same(events.slice(0, 2), ['vm-connected', 'too-few-queues']);
  t.equal((await guest.sh('true')).code, 0);
});

void t.test('share=off is refused with the words that mend it, and the guest lives', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'private', { memoryMib: 256, share: false });
  const view = await daemon.until('private', ({ verdict }) => verdict !== null, 'a verdict');
  t.match(view.verdict, /share=on/);
  t.equal((await guest.sh('true')).code, 0);
  const { code, stderr } = await daemon.ctl('set', 'private', '--balloon', '64M', '--wait', '--timeout', '1');
  t.equal(code, 4);
  t.match(stderr, /share=on/);
});

void t.test('packed ring', async (t) => {
  const daemon = await startDaemon(t, {
    config: `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ", "VIRTIO_BALLOON_F_DEFLATE_ON_OOM", "VIRTIO_BALLOON_F_REPORTING", "VIRTIO_F_RING_PACKED"]
`,
  });
  const guest = await boot(t, daemon, 'packed', { device: { numVqs: 4, extra: ',packed=on' } });
  t.ok((await daemon.show('packed')).features.includes('VIRTIO_F_RING_PACKED'));
  await guest.hold(100, 3);
  for (const size of ['200M', '20M', '150M']) await daemon.ok('set', 'packed', '--balloon', size, '--wait');
  await daemon.ok('stats', 'packed', '--refresh');
  await guest.qmp('stop');
  await daemon.until('packed', ({ state }) => state === 'stopped', 'paused');
  await guest.qmp('cont');
  await daemon.ok('set', 'packed', '--balloon', '30M', '--wait');
  await daemon.ok('stats', 'packed', '--refresh');
  t.equal(await guest.verify(), 0);
});

void t.test('memory hotplug: the new memory counts and balloons', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'growing', { hotplugSlots: 2 });
  await daemon.ok('set', 'growing', '--balloon', '200M', '--wait');
  await guest.addMemory(256);
  const view = await daemon.until('growing', ({ ramBytes }) => ramBytes === 768 * MIB, 'the DIMM is there');
  t.equal(view.balloon.actualBytes, 200 * MIB, 'what was ballooned stays');
  await daemon.ok('set', 'growing', '--balloon', '450M', '--wait', '--timeout', '60');
  await daemon.until(
    'growing',
    () => guest.memfdAllocatedBytes() < (768 - 450 + 16) * MIB,
    'the host has what the guest gave up',
  );
  await daemon.ok('set', 'growing', '--balloon', '0', '--wait');
  t.ok(await guest.eat(500));
});
