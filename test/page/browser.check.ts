// The page in a real browser, which takes 300 MB to install: BALLOOND_BROWSER=chromium-headless-shell npm test -- out/test/page/browser.check.js
// BALLOOND_PICTURE=FILE leaves a picture of it, with Linux guests; that takes two minutes and 6 GiB.
// BALLOOND_PICTURES=FOLDER leaves pictures of a modelled fleet at two widths, light and dark, to be looked at.
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { STREAMS_MAX } from '../../src/control/places.js';
import { startMetricsServer } from '../../src/control/metrics-server.js';
import { pageFiles } from '../../src/main.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { Chromium } from '../support/chromium.js';
import { DaemonProcess } from '../support/daemon.js';
import { boot, startDaemon } from '../support/e2e.js';
import { MemoryEvents, MemoryFleet, MemoryHistory, vmView } from '../support/fleet.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { DEEDS, PageFleet, pageHistory } from '../support/page-fleet.js';
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
  const reading = `document.getElementById('host-reading').textContent`;
  await browser.until(`/other programs .*VMs in .*reserve/.test(${reading})`);
  t.equal(await browser.evaluate(`document.querySelectorAll('#host canvas').length`), 1);
  t.match(await browser.evaluate(`document.querySelector('#vms tr').textContent`), /^build-7running/);
  t.same(browser.complaints, []);
});

/** The page of a fleet with an hour behind it. */
async function modelled(t: Test): Promise<Chromium> {
  const events = new MemoryEvents();
  const hourAgo = Date.now() - 3_500_000;
  for (const [event, moment, vm, message] of DEEDS)
    events.emit(event, message, vm, new Date(hourAgo + moment * 3_500_000));
  const server = await startMetricsServer(
    { host: '127.0.0.1', port: 0 },
    { fleet: new PageFleet(), history: pageHistory() },
    events,
    pageFiles(),
  );
  t.teardown(() => server.close());
  const browser = await open(t, `http://127.0.0.1:${server.address.port}/`);
  await browser.until(`document.querySelectorAll('#vms tr').length === 8`);
  await browser.until(`document.querySelectorAll('#events li').length === ${DEEDS.length}`);
  return browser;
}

const NAMES_SHOWN = `[...document.querySelectorAll('#vms .name')].map((each) => each.textContent.slice(0, 7)).join(' ')`;

void t.test('the table is sorted and filtered, by keys as well', options, async (t) => {
  const browser = await modelled(t);
  const names = (): Promise<unknown> => browser.evaluate(NAMES_SHOWN);
  const click = (id: string): Promise<unknown> =>
    browser.evaluate(`document.getElementById('${id}').click()`);
  t.equal(await names(), 'build-7 build-8 db-1 db-2 new web-1 web-2 web-10');
  await click('sort-memory');
  t.equal(await names(), 'db-1 build-7 build-8 db-2 web-1 web-2 web-10 new');
  t.equal(await browser.evaluate(`document.querySelector('[aria-sort]').textContent`), 'Memory');
  await click('sort-band');
  t.equal(await names(), 'db-1 db-2 web-1 web-2 web-10 build-7 build-8 new');
  await browser.press('/', '/');
  for (const letter of 'web') await browser.press(letter, letter);
  await browser.until(`${NAMES_SHOWN} === 'web-1 web-2 web-10'`);
  t.equal(await browser.evaluate(`document.getElementById('count').textContent`), '3 of 8 VMs');
  await click('notable');
  await browser.until(`${NAMES_SHOWN} === 'web-1 web-10'`);
  t.match(await browser.evaluate(`document.querySelector('#vms').textContent`), /manual.*inhibited/);
  t.same(browser.complaints, []);
});

void t.test('one VM has a view of its own, with its hour and its events', options, async (t) => {
  const browser = await modelled(t);
  await browser.evaluate(`document.querySelector('#vms .name').click()`);
  await browser.until(`document.getElementById('vm-title').textContent === 'build-7'`);
  await browser.until(
    `/target.*balloon.*on the host.*available/.test(document.getElementById('vm-reading').textContent)`,
  );
  t.equal(await browser.evaluate(`document.activeElement.id`), 'vm-title', 'it has the focus');
  t.equal(await browser.evaluate(`document.getElementById('vms-section').hidden`), true);
  t.equal(await browser.evaluate(`document.querySelectorAll('#events li').length`), 3, 'its events alone');
  await browser.evaluate(`document.getElementById('vm-chart').focus()`);
  const moment = `document.querySelector('#vm-reading .moment').textContent`;
  const now = String(await browser.evaluate(moment));
  const moved = async (key: string, from: string): Promise<string> => {
    // The hour may have yet to come.
    for (let tries = 0; (await browser.evaluate(moment)) === from && tries < 400; tries++) {
      await browser.press(key);
      await sleep(50);
    }
    return String(await browser.evaluate(moment));
  };
  const first = await moved('Home', now);
  t.not(first, now, 'the first key goes to the beginning of the hour');
  t.not(await moved('PageDown', first), first, 'keys move the cursor over the hour');
  await browser.press('Escape');
  await browser.until(`!document.getElementById('vms-section').hidden`);
  t.equal(await browser.evaluate(`document.querySelectorAll('#events li').length`), DEEDS.length);
  t.same(browser.complaints, []);
});

interface Violation {
  readonly id: string;
  readonly impact: string;
  readonly nodes: readonly { readonly html: string }[];
}

const pictures = process.env['BALLOOND_PICTURES'];
if (pictures !== undefined) mkdirSync(pictures, { recursive: true });
const require = createRequire(import.meta.url);

void t.test(
  'nothing serious is wrong with it for anybody, and it never scrolls sideways',
  options,
  async (t) => {
    const browser = await modelled(t);
    const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
    await browser.evaluate(`${axe}; true`);
    for (const view of ['', '#vm=build-7']) {
      await browser.evaluate(`location.hash = '${view}'`);
      for (const [width, height] of [
        [1280, 900],
        [390, 844],
      ] as const) {
        for (const scheme of ['light', 'dark'] as const) {
          const where = `${view === '' ? 'all' : 'one'}-${width}-${scheme}`;
          await browser.size(width, height);
          await browser.colours(scheme);
          await sleep(300);
          const found = (await browser.evaluate(
            `axe.run().then(({ violations }) => JSON.parse(JSON.stringify(violations)))`,
          )) as Violation[];
          const serious = found.filter(({ impact }) => impact === 'serious' || impact === 'critical');
          t.same(
            serious.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)]),
            [],
            where,
          );
          const over = await browser.evaluate(
            'document.documentElement.scrollWidth - document.documentElement.clientWidth',
          );
          t.ok(Number(over) <= 0, `${where} is ${String(over)} too wide`);
          if (pictures !== undefined)
            writeFileSync(join(pictures, `${where}.png`), await browser.picture(true));
        }
      }
    }
    t.same(browser.complaints, []);
  },
);

void t.test(
  'a page that was turned away says why, and comes back when there is a place',
  options,
  async (t) => {
    const fleet = new MemoryFleet(vmView('web'));
    const server = await startMetricsServer(
      { host: '127.0.0.1', port: 0 },
      { fleet, history: new MemoryHistory() },
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
  const server = await startMetricsServer(
    { host: '127.0.0.1', port: 0 },
    { fleet, history: new MemoryHistory() },
    events,
    pageFiles(),
  );
  t.teardown(() => server.close());
  const url = `http://127.0.0.1:${server.address.port}/`;
  const browser = await open(t, url);
  await browser.until(`document.querySelectorAll('#vms tr').length === 1`);
  await browser.until(`document.querySelectorAll('#events li').length === 1`);
  t.equal(await browser.evaluate(`document.querySelector('#vms .name').textContent`), HOSTILE);
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
