/** The table of VMs: sorted, filtered, and with the last minutes of each in small. */
import type { LiveTick, LiveVm } from '../../protocol/control/live.js';
import { formatSize } from '../../protocol/control/size.js';
import { isShown, SORT_KEYS, sorted, sparkline, type Sorting, type SortKey, type Ticks } from './model.js';
import { byId, make, showBadges, svg, write } from './show-parts.js';

const SPARK = { width: 100, height: 20 } as const;
/** Figures begin with the largest. */
const DESCENDS: readonly SortKey[] = ['memory', 'host', 'balloon', 'target', 'available'];

const CELLS = [
  'state',
  'band',
  'memory',
  'host',
  'balloon',
  'target',
  'available',
  'cache',
  'wrong',
] as const;
type Cell = (typeof CELLS)[number];
const LABELS: Readonly<Record<Cell, string>> = {
  state: 'State',
  band: 'Band',
  memory: 'Memory',
  host: 'On the host',
  balloon: 'Balloon',
  target: 'Target',
  available: 'Available',
  cache: 'Page cache balloon',
  wrong: 'What is wrong',
};

/** Elements of one VM; only what changes is written. */
interface Row {
  readonly row: HTMLTableRowElement;
  readonly texts: Readonly<Record<Cell, HTMLElement>>;
  readonly badges: HTMLElement;
  readonly sparks: Readonly<Record<'host' | 'balloon', SVGElement>>;
}

export class VmTable {
  readonly #ticks: Ticks;
  readonly #rows = new Map<string, Row>();
  #sorting: Sorting = { key: 'name', descending: false };
  #bands = '';

  constructor(ticks: Ticks) {
    this.#ticks = ticks;
    for (const key of SORT_KEYS) {
      byId(`sort-${key}`).addEventListener('click', () => this.#sortBy(key));
    }
    const choice = byId('sort') as HTMLSelectElement;
    choice.addEventListener('change', () =>
      this.#sortBy(SORT_KEYS.find((key) => key === choice.value) ?? 'name'),
    );
    for (const id of ['filter', 'band', 'notable']) byId(id).addEventListener('input', () => this.show());
  }

  show(): void {
    const tick = this.#ticks.latest;
    if (tick === undefined) return;
    const { vms, policy } = tick;
    this.#offerBands(policy.bands);
    const wanted = {
      text: (byId('filter') as HTMLInputElement).value,
      band: (byId('band') as HTMLSelectElement).value,
      notable: (byId('notable') as HTMLInputElement).checked,
    };
    const shown = sorted(
      vms.filter((vm) => isShown(vm, wanted)),
      this.#sorting,
      policy.bands,
    );
    const count = shown.length === vms.length ? `${vms.length}` : `${shown.length} of ${vms.length}`;
    write(byId('count'), `${count} ${vms.length === 1 ? 'VM' : 'VMs'}`);
    byId('table').classList.toggle(
      'cached',
      vms.some(({ cacheBytes }) => cacheBytes !== null),
    );
    this.#place(shown);
    this.#draw(shown, tick);
  }

  #sortBy(key: SortKey): void {
    const again = key === this.#sorting.key;
    const descending = again ? !this.#sorting.descending : DESCENDS.includes(key);
    this.#sorting = { key, descending };
    for (const one of SORT_KEYS) {
      const head = byId(`sort-${one}`).closest('th');
      if (one === key) head?.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
      else head?.removeAttribute('aria-sort');
    }
    (byId('sort') as HTMLSelectElement).value = key;
    this.show();
  }

  #offerBands(bands: readonly string[]): void {
    const words = bands.join('\n');
    if (words === this.#bands) return;
    this.#bands = words;
    const [first = new Option('all bands', '')] = (byId('band') as HTMLSelectElement).options;
    byId('band').replaceChildren(first, ...bands.map((band) => new Option(band, band)));
  }

  /** Puts the rows into the order of the VMs; rows that are in place are left alone, so that a focus stays. */
  #place(vms: readonly LiveVm[]): void {
    const body = byId('vms');
    const names = new Set(vms.map(({ name }) => name));
    for (const [name, { row }] of this.#rows) {
      if (names.has(name)) continue;
      row.remove();
      this.#rows.delete(name);
    }
    let next = body.firstElementChild;
    for (const { name } of vms) {
      const { row } = this.#row(name);
      if (row === next) next = row.nextElementSibling;
      else body.insertBefore(row, next);
    }
  }

  #row(name: string): Row {
    const known = this.#rows.get(name);
    if (known !== undefined) return known;
    const row = make('tr');
    const head = make('th');
    head.scope = 'row';
    const link = make('a', 'name', name);
    link.href = `#vm=${encodeURIComponent(name)}`;
    const badges = make('span', 'badges');
    head.append(link, badges);
    row.append(head);
    const texts = Object.fromEntries(
      CELLS.map((cell) => {
        const data = make('td', cell);
        data.dataset['label'] = LABELS[cell];
        const text = make('span');
        data.append(text);
        row.append(data);
        return [cell, text];
      }),
    ) as Record<Cell, HTMLElement>;
    const sparks = { host: spark(texts.host), balloon: spark(texts.balloon) };
    const made = { row, texts, badges, sparks };
    this.#rows.set(name, made);
    return made;
  }

  #draw(vms: readonly LiveVm[], { time }: LiveTick): void {
    const from = this.#ticks.all[0]?.time ?? time;
    const host = this.#ticks.series((vm) => vm.allocatedBytes);
    const balloon = this.#ticks.series((vm) => vm.actualBytes);
    for (const vm of vms) {
      const { texts, badges, sparks } = this.#row(vm.name);
      const line = (points: ReturnType<Ticks['series']>): string =>
        sparkline(points.get(vm.name) ?? [], from, time, vm.ramBytes, SPARK.width, SPARK.height);
      for (const [cell, words] of Object.entries(wordsOf(vm))) write(texts[cell as Cell], words);
      showBadges(badges, vm);
      setPath(sparks.host, line(host));
      setPath(sparks.balloon, line(balloon));
    }
  }
}

function wordsOf(vm: LiveVm): Record<Cell, string> {
  return {
    state: vm.state,
    band: vm.band ?? '',
    memory: formatSize(vm.ramBytes),
    host: formatSize(vm.allocatedBytes),
    balloon: vm.actualUnknown ? 'unknown' : formatSize(vm.actualBytes),
    target: formatSize(vm.targetBytes),
    available: vm.availableBytes === null ? '' : formatSize(vm.availableBytes),
    cache: vm.cacheBytes === null ? '' : formatSize(vm.cacheBytes),
    wrong: vm.verdict ?? '',
  };
}

/** A line in small before a text. */
function spark(text: HTMLElement): SVGElement {
  const box = svg('svg', {
    class: 'spark',
    viewBox: `0 0 ${SPARK.width} ${SPARK.height}`,
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
  });
  const path = svg('path', {});
  box.append(path);
  text.before(box);
  return path;
}

function setPath(path: SVGElement, d: string): void {
  if (path.getAttribute('d') !== d) path.setAttribute('d', d);
}
