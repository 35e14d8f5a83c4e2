/**
 * The page that the daemon serves on its metrics address: VMs, host and events live. The browser loads page.js (this file)
 * from index.html, with page.css; metrics-server (src/control) serves them. It follows the streams of live ticks and of
 * events, and asks for the last hour once; each tick goes through model (ticks, the hour, layers) and marks, and comes out as
 * charts and rows in the files show-*. The page imports protocol/ and uPlot and nothing else, and changes nothing.
 */
import { EVENT_NAMES } from '../../protocol/control/events.js';
import type { LiveHistory, LiveTick } from '../../protocol/control/live.js';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { markOf, Marks } from './marks.js';
import { Hour, Ticks } from './model.js';
import { EventList } from './show-events.js';
import { HostView } from './show-host.js';
import { byId, write } from './show-parts.js';
import { VmTable } from './show-table.js';
import { VmPage } from './show-vm.js';

const RETRY_MS = 5000;

let drawing = false;
const ticks = new Ticks();
const marks = new Marks();
const hour = new Hour((name) => /^(host|band) /.test(name));
const host = new HostView(hour, marks);
const table = new VmTable(ticks);
const page = new VmPage(marks, showSoon);
const events = new EventList();

function summarise({ vms, policy, hostAvailableBytes, hostTotalBytes }: LiveTick): void {
  const running = vms.filter(({ state }) => state === 'running').length;
  const size = `${formatSize(hostAvailableBytes)} of ${formatSize(hostTotalBytes)}`;
  const { part } = policy;
  const forVms =
    part === null
      ? ''
      : `, and ${formatSize(part.availableBytes)} of the ${formatSize(part.totalBytes)} that VMs may have`;
  const mode = `policy ${policy.mode}${policy.paused ? ', paused' : ''}`;
  write(
    byId('summary'),
    `${vms.length} ${vms.length === 1 ? 'VM' : 'VMs'}, ${running} running; ${size} available on the host${forVms}; ${mode}`,
  );
}

function show(): void {
  const { latest } = ticks;
  if (latest === undefined) return;
  summarise(latest);
  host.show(latest);
  if (page.name === null) table.show();
  else page.show(latest);
}

function showSoon(): void {
  // A page that nobody sees, and what comes all at once, need not be drawn each time.
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    show();
  });
}

function showTick({ data }: MessageEvent<string>): void {
  const tick = JSON.parse(data) as LiveTick;
  if (!ticks.add(tick)) return;
  hour.add(tick);
  page.add(tick);
  showSoon();
}

function showEvent({ data }: MessageEvent<string>): void {
  const event = JSON.parse(data) as DaemonEvent;
  events.add(event);
  const mark = markOf(event);
  if (mark === null) return;
  marks.add(mark);
  showSoon();
}

/** The address says which VM is shown, so that the browser goes back and forth between views. */
function goToView(): void {
  const name = new URLSearchParams(location.hash.slice(1)).get('vm');
  page.open(name, ticks.all);
  events.only(name);
  show();
  if (name !== null) byId('vm-title').focus();
}

/**
 * Follows a stream for as long as the page is there. A browser comes back by itself when it is cut off, with the id of
 * the last event; but not when it is turned away, since all places for streams are taken.
 */
function follow(path: string, watch: (stream: EventSource) => void, lost: (why: string) => void): void {
  const stream = new EventSource(path);
  watch(stream);
  stream.addEventListener('error', () => {
    if (stream.readyState !== EventSource.CLOSED) {
      lost('the daemon does not answer; trying again');
      return;
    }
    lost('the daemon has no place for this page: close others of it; trying again');
    setTimeout(() => follow(path, watch, lost), RETRY_MS);
  });
}

addEventListener('hashchange', goToView);
addEventListener('keydown', (event) => {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key === 'Escape' && page.name !== null) location.hash = '';
  if (event.key !== '/' || typing || page.name !== null) return;
  event.preventDefault();
  byId('filter').focus();
});
follow(
  'live',
  (stream) => stream.addEventListener('message', showTick),
  (why) => write(byId('summary'), why),
);
follow(
  'events',
  (stream) => {
    // It tells all that it remembers.
    events.clear();
    marks.clear();
    for (const name of EVENT_NAMES) stream.addEventListener(name, showEvent);
  },
  () => undefined,
);
void fetch('history')
  .then((answer) => answer.json() as Promise<LiveHistory>)
  .then((history) => {
    hour.load(history);
    showSoon();
  })
  // The chart begins with the ticks then.
  .catch(() => undefined);
goToView();
