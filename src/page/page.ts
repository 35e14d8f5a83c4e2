/**
 * The page that the daemon serves on its metrics address: VMs, host and events live. The browser loads page.js (this file)
 * from index.html, with page.css; metrics-server (src/control) serves them. It follows the streams of live ticks and of
 * events; each tick goes through model (history, sparklines, layers), and comes out as table rows and drawings here.
 * The page imports protocol/ and nothing else, and changes nothing.
 */
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { EVENT_NAMES } from '../../protocol/control/events.js';
import type { LiveTick, LiveVm } from '../../protocol/control/live.js';
import { formatSize } from '../../protocol/control/size.js';
import { History, hostLayers, sparkline } from './model.js';

const SVG = 'http://www.w3.org/2000/svg';
const SPARK = { width: 120, height: 22 } as const;
const EVENTS_SHOWN = 200;

const history = new History();
const rows = new Map<string, Row>();

/** Elements of one VM; only what changes is written. */
interface Row {
  readonly row: HTMLTableRowElement;
  readonly texts: Record<
    'state' | 'memory' | 'allocated' | 'actual' | 'target' | 'cache' | 'verdict',
    HTMLElement
  >;
  readonly sparks: Record<'allocated' | 'actual', SVGPathElement>;
}

function byId(id: string): Element {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no ${id}`);
  return element;
}

function svg(name: 'svg' | 'path' | 'rect', attributes: Record<string, string | number>): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

function spark(kind: string): { cell: HTMLElement; path: SVGPathElement } {
  const cell = document.createElement('td');
  const box = svg('svg', {
    class: `spark ${kind}`,
    viewBox: `0 0 ${SPARK.width} ${SPARK.height}`,
    preserveAspectRatio: 'none',
  });
  const path = svg('path', {}) as SVGPathElement;
  box.append(path);
  cell.append(box);
  return { cell, path };
}

function cell(className: string): HTMLElement {
  const made = document.createElement('td');
  made.className = className;
  return made;
}

function makeRow(name: string): Row {
  const row = document.createElement('tr');
  const title = cell('name');
  title.textContent = name;
  title.title = name;
  const allocated = spark('allocated');
  const actual = spark('balloon');
  const texts = {
    state: cell('state'),
    memory: cell('number'),
    allocated: cell('number'),
    actual: cell('number'),
    target: cell('number'),
    cache: cell('number cache'),
    verdict: cell('wrong'),
  };
  row.append(title, texts.state, texts.memory, texts.allocated, allocated.cell, texts.actual, actual.cell);
  row.append(texts.target, texts.cache, texts.verdict);
  return { row, texts, sparks: { allocated: allocated.path, actual: actual.path } };
}

function write(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

function draw(path: SVGElement, d: string): void {
  if (path.getAttribute('d') !== d) path.setAttribute('d', d);
}

function showVms({ vms, time }: LiveTick): void {
  const body = byId('vms');
  const present = new Set(vms.map(({ name }) => name));
  for (const [name, { row }] of rows) {
    if (present.has(name)) continue;
    row.remove();
    rows.delete(name);
  }
  byId('table').classList.toggle(
    'cached',
    vms.some(({ cacheBytes }) => cacheBytes !== null),
  );
  const from = history.ticks[0]?.time ?? time;
  const allocated = history.series((vm) => vm.allocatedBytes);
  const actual = history.series((vm) => vm.actualBytes);
  for (const vm of vms) {
    const known = rows.get(vm.name);
    const shown = known ?? makeRow(vm.name);
    if (known === undefined) {
      rows.set(vm.name, shown);
      body.append(shown.row);
    }
    showVm(shown, vm);
    const line = (points: Map<string, { time: number; value: number }[]>): string =>
      sparkline(points.get(vm.name) ?? [], from, time, vm.ramBytes, SPARK.width, SPARK.height);
    draw(shown.sparks.allocated, line(allocated));
    draw(shown.sparks.actual, line(actual));
  }
}

function showVm({ texts }: Row, vm: LiveVm): void {
  write(texts.state, vm.state);
  write(texts.memory, formatSize(vm.ramBytes));
  write(texts.allocated, formatSize(vm.allocatedBytes));
  write(texts.actual, vm.actualUnknown ? 'unknown' : formatSize(vm.actualBytes));
  write(texts.target, formatSize(vm.targetBytes));
  write(texts.cache, vm.cacheBytes === null ? '' : formatSize(vm.cacheBytes));
  write(texts.verdict, vm.verdict ?? '');
}

function showHost(tick: LiveTick): void {
  const layers = hostLayers(history.ticks);
  const classOf = (colour: number | null): string => (colour === null ? 'rest' : `c${colour % 5}`);
  byId('host').replaceChildren(
    ...layers.map(({ colour, path }) => svg('path', { class: classOf(colour), d: path })),
  );
  byId('legend').replaceChildren(
    ...layers.map(({ label, colour, points }) => {
      const item = document.createElement('li');
      const key = svg('svg', { viewBox: '0 0 10 10' });
      key.append(svg('rect', { class: classOf(colour), width: 10, height: 10 }));
      item.append(key, `${label} ${formatSize(points.at(-1)?.value ?? 0)}`);
      return item;
    }),
  );
  const { vms, hostAvailableBytes, hostTotalBytes } = tick;
  const running = vms.filter(({ state }) => state === 'running').length;
  byId('summary').textContent =
    `${vms.length} ${vms.length === 1 ? 'VM' : 'VMs'}, ${running} running; ${formatSize(hostAvailableBytes)} of ${formatSize(hostTotalBytes)} available on the host`;
}

function showEvent({ time, level, vm, event, message }: DaemonEvent): void {
  const list = byId('events');
  const item = document.createElement('li');
  item.className = level;
  item.textContent = `${new Date(time).toLocaleTimeString()}  ${vm === undefined ? '' : `${vm}: `}${message} (${event})`;
  list.prepend(item);
  while (list.childElementCount > EVENTS_SHOWN) list.lastElementChild?.remove();
}

let drawing = false;
function showTick({ data }: MessageEvent<string>): void {
  history.add(JSON.parse(data) as LiveTick);
  // A page that nobody sees, and what comes all at once, need not be drawn each time.
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const { latest } = history;
    if (latest === undefined) return;
    showVms(latest);
    showHost(latest);
  });
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

const RETRY_MS = 5000;

follow(
  'live',
  (stream) => stream.addEventListener('message', showTick),
  (why) => (byId('summary').textContent = why),
);
follow(
  'events',
  (stream) => {
    // It tells all that it remembers.
    byId('events').replaceChildren();
    for (const name of EVENT_NAMES) {
      stream.addEventListener(name, ({ data }: MessageEvent<string>) =>
        showEvent(JSON.parse(data) as DaemonEvent),
      );
    }
  },
  () => undefined,
);
