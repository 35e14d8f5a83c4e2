// The page in a real browser, which takes 300 MB to install: BALLOOND_BROWSER=chromium-headless-shell npm test -- out/test/page/browser.check.js
// BALLOOND_PICTURE=docs/page.png leaves a picture of it, with Linux guests; that takes two minutes and 6 GiB.
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { STREAMS_MAX } from '../../src/control/places.js';
import { startMetricsServer } from '../../src/control/metrics-server.js';
import { pageFiles } from '../../src/main.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { Chromium } from '../support/chromium.js';
import { DaemonProcess } from '../support/daemon.js';
import { boot, startDaemon } from '../support/e2e.js';
import { MemoryEvents, MemoryFleet, vmView } from '../support/fleet.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { pfns } from '../support/served-vm.js';
import { ANY_VMM } from '../support/vmm-orders.js';

t.setTimeout(0);

const program = process.env['BALLOOND_BROWSER'];
const picture = process.env['BALLOOND_PICTURE'];
const options = program === undefined ? { skip: 'BALLOOND_BROWSER names no browser' } : {};
const HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
const NAMES = ['web-1', 'web-2', 'db-1', 'build-7'];
const MIB = 2 ** 20;
const RAM_MIB = 64;

async function open(t: Test, url: string): Promise<Chromium> {
  const browser = await Chromium.start(program ?? '', 1120, 760);
  t.teardown(() => browser.stop());
  await browser.call('Page.navigate', { url });
  return browser;
}

/** A VM whose guest walks its balloon up and down. */
async function walkingVm(t: Test, socket: string, n: number): Promise<void> {
  const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_MIB * MIB }]);
  const frontend = new Frontend({ socket, ram, order: ANY_VMM });
  t.teardown(() => frontend.close());
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend, { areaGpa: 0x10000 });
  const bytes = new Uint8Array(MIB).fill(1);
  let closed = false;
  const walk = async (): Promise<void> => {
    for (let mib = 2; mib < RAM_MIB; mib++) ram.write(mib * MIB, bytes);
    for (let step = n; !closed; step++) {
      const mib = 4 + ((step * 7) % 50);
      await driver.inflate(pfns((mib * MIB) / 4096, 256 * 8));
      await sleep(300 + 200 * n);
      if (step % 3 > 0) continue;
      await driver.deflate([...driver.balloonPfns].slice(0, 256 * 12));
      for (let at = 2; at < RAM_MIB; at++) {
        if (!driver.balloonPfns.has((at * MIB) / 4096)) ram.write(at * MIB, bytes);
      }
    }
  };
  const walking = walk();
  // Before its daemon ends: a step that nobody answers would be waited for.
  t.teardown(async () => {
    closed = true;
    await walking;
  });
}

void t.test('VMs, their lines, the host and the events are shown, live', options, async (t) => {
  const sockets = NAMES.map((name) => `[[socket]]\npath = "{folder}/${name}.sock"\nname = "${name}"\n`);
  const daemon = await DaemonProcess.start({ metrics: true, config: sockets.join('') });
  t.teardown(() => daemon.stop());
  for (const [n, name] of NAMES.entries()) await walkingVm(t, `${daemon.folder}/${name}.sock`, n);
  const browser = await open(t, `${daemon.metricsUrl}/`);
  await browser.until(`document.querySelectorAll('#vms tr').length === ${NAMES.length}`);
  await browser.until(`document.querySelectorAll('#events li').length > 10`);
  const path = `document.querySelector('#vms .spark path').getAttribute('d')`;
  const first = await browser.evaluate(path);
  await browser.until(`${path} !== ${JSON.stringify(first)}`);
  t.match(await browser.evaluate(`document.getElementById('summary').textContent`), /^4 VMs, 4 running; /);
  t.match(await browser.evaluate(`document.querySelector('#host path').getAttribute('d')`), /^M0 .*Z$/);
  t.match(await browser.evaluate(`document.querySelector('#vms tr').textContent`), /^web-1running64 MiB/);
  t.same(browser.complaints, []);
});

void t.test(
  'a page that was turned away says why, and comes back when there is a place',
  options,
  async (t) => {
    const fleet = new MemoryFleet(vmView('web'));
    const server = await startMetricsServer(
      { host: '127.0.0.1', port: 0 },
      fleet,
      new MemoryEvents(),
      pageFiles(),
    );
    t.teardown(() => server.close());
    const { host, port } = server.address;
    const streams = Array.from({ length: STREAMS_MAX }, () => request({ host, port, path: '/live' }).end());
    for (const stream of streams) stream.on('error', () => undefined);
    await Promise.all(streams.map((stream) => once(stream, 'response')));
    const browser = await open(t, `http://${host}:${port}/`);
    const summary = `document.getElementById('summary').textContent`;
    await browser.until(`/has no place for this page: close others/.test(${summary})`);
    for (const stream of streams) stream.destroy();
    await browser.until(`/^1 VM, 1 running/.test(${summary})`);
  },
);

/** By band, and what each takes for itself. */
const GUESTS_MIB = { 'db-1': 1500, 'web-1': 900, 'web-2': 1100, 'build-7': 1300 } as const;
const BANDS = `[[socket]]
path = "{folder}/vhost.sock"

[[policy.band]]
name = "gold"
match = ["db-*"]

[[policy.band]]
name = "silver"
match = ["web-*"]

[[policy.band]]
name = "bronze"
match = ["build-*"]
`;
const noPicture = picture === undefined ? { skip: 'BALLOOND_PICTURE names no file' } : options;

void t.test('a picture', noPicture, async (t) => {
  const daemon = await startDaemon(t, { config: BANDS, metrics: true });
  const browser = await open(t, `${daemon.metricsUrl}/`);
  const booted = Object.entries(GUESTS_MIB).map(async ([name, mib]) => {
    const guest = await boot(t, daemon, name, { memoryMib: 2048 });
    await guest.hold(mib, 1);
    return guest;
  });
  const [, , web2, build] = await Promise.all(booted);
  await daemon.ok('set', 'web-1', '--memory', '1.3G', '--wait');
  await web2?.drop();
  await daemon.ok('set', 'web-2', '--memory', '600M', '--wait');
  // More than it has to give: the page says so after a while.
  await daemon.ok('set', 'build-7', '--memory', '1G');
  await sleep(20_000);
  await daemon.ok('set', 'web-2', '--memory', '1.5G', '--wait');
  await web2?.hold(700, 2);
  await daemon.until('build-7', ({ verdict }) => verdict !== null, 'a verdict', 60_000);
  await sleep(5000);
  writeFileSync(picture ?? '', await browser.picture());
  t.equal(await build?.verify(), 0);
  t.same(browser.complaints, []);
});

void t.test('a VM that is called like a page is a name like any other', options, async (t) => {
  const fleet = new MemoryFleet(vmView(HOSTILE, { verdict: HOSTILE }));
  const events = new MemoryEvents();
  events.emit('vm-ready', HOSTILE, HOSTILE);
  const server = await startMetricsServer({ host: '127.0.0.1', port: 0 }, fleet, events, pageFiles());
  t.teardown(() => server.close());
  const url = `http://127.0.0.1:${server.address.port}/`;
  const browser = await open(t, url);
  await browser.until(`document.querySelectorAll('#vms tr').length === 1`);
  await browser.until(`document.querySelectorAll('#events li').length === 1`);
  t.equal(await browser.evaluate(`document.querySelector('td.name').textContent`), HOSTILE);
  t.equal(await browser.evaluate(`document.querySelectorAll('img, td script').length`), 0);
  t.equal(await browser.evaluate('window.hacked'), undefined);
  t.same(browser.complaints, []);
  // And if it ever were markup, the policy would not let it run.
  await browser.evaluate(`document.body.insertAdjacentHTML('beforeend', ${JSON.stringify(HOSTILE)})`);
  await sleep(300);
  t.equal(await browser.evaluate('window.hacked'), undefined);
  t.ok(browser.complaints.some((each) => each.includes('Content Security Policy')));

  fleet.remove(HOSTILE);
  await browser.until(`document.querySelectorAll('#vms tr').length === 0`);
});
