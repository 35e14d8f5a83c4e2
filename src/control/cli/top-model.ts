/** What is on the screen of `balloonctl top`, and what keys change of it. It knows no terminal. */
import type { VmView } from '../../../protocol/control/schema.js';
import { SORT_KEYS } from './choices.js';
import type { Key } from './keys.js';
import { printable, type Output } from './output.js';
import { renderVm } from './show.js';
import { shorten } from './text.js';
import {
  Samples,
  sortVms,
  summaryLines,
  verdictLines,
  vmTable,
  type Screen,
  type Seen,
  type SortKey,
} from './top-view.js';

/** In 80 columns, behind where the table is. */
const LIST_KEYS = 'q quit  Enter show  / filter  sort by n m b a';
const FILTER_KEYS = 'Enter keeps the filter, Esc clears it';
const DETAIL_KEYS = 'Esc or q goes back';
/** Rows that are not of the table: two of the summary, its head, and the help line. */
const FRAME_ROWS = 4;

export class TopModel {
  /** Why what is shown is not of now; null: it is. */
  problem: string | null = null;
  #mode: 'list' | 'filter' | 'detail' = 'list';
  #sort: SortKey;
  #filter = '';
  #selected: string | null = null;
  /** Where the selected VM is among those shown, so that another takes its place when it goes. */
  #at = 0;
  #offset = 0;
  #detailOffset = 0;
  #page = 1;
  #seen: Seen;
  readonly #samples = new Samples();

  constructor(seen: Seen, sort: SortKey) {
    this.#seen = seen;
    this.#sort = sort;
    this.#samples.add(seen.vms);
  }

  see(seen: Seen): void {
    this.#seen = seen;
    this.#samples.add(seen.vms);
    this.problem = null;
  }

  press(key: Key): 'quit' | 'suspend' | null {
    if (key === 'interrupt') return 'quit';
    if (key === 'suspend') return 'suspend';
    if (this.#mode === 'filter') this.#typeFilter(key);
    else if (this.#mode === 'detail') this.#pressInDetail(key);
    else return this.#pressInList(key);
    return null;
  }

  /** As many lines as the screen has rows. */
  frame({ columns, rows }: Screen, output: Output): string[] {
    const lines = this.#mode === 'detail' ? this.#detail(columns, rows) : this.#list(columns, rows, output);
    const last =
      this.problem === null
        ? output.paint('dim', shorten(this.#help(), columns))
        : output.paint('red', shorten(this.problem, columns));
    const above = lines.slice(0, Math.max(0, rows - 1));
    while (above.length < rows - 1) above.push('');
    return [...above, last];
  }

  #pressInList(key: Key): 'quit' | null {
    const word = typeof key === 'string' ? key : key.typed;
    if (word === 'q') return 'quit';
    if (word === '/') this.#mode = 'filter';
    else if (word === 'escape') this.#filter = '';
    else if (word === 'enter') this.#open();
    else if (this.#move(word)) return null;
    else this.#sort = SORT_KEYS.find((by) => word.length === 1 && by.startsWith(word)) ?? this.#sort;
    return null;
  }

  #typeFilter(key: Key): void {
    if (key === 'enter') this.#mode = 'list';
    else if (key === 'escape') {
      this.#filter = '';
      this.#mode = 'list';
    } else if (key === 'backspace') this.#filter = Array.from(this.#filter).slice(0, -1).join('');
    else if (key === 'erase-line') this.#filter = '';
    else if (typeof key === 'object') this.#filter += key.typed;
    else this.#move(key);
  }

  #pressInDetail(key: Key): void {
    const word = typeof key === 'string' ? key : key.typed;
    const steps: Readonly<Record<string, number>> = {
      ...{ up: -1, k: -1, down: 1, j: 1, home: -Infinity, g: -Infinity, end: Infinity, G: Infinity },
      ...{ 'page-up': -this.#page, 'page-down': this.#page },
    };
    const step = steps[word];
    if (step !== undefined) this.#detailOffset += step;
    else if (word === 'escape' || word === 'q' || word === 'enter') this.#mode = 'list';
  }

  /** Whether it was a key that moves the selection. */
  #move(word: string): boolean {
    const last = this.#vms().length - 1;
    const none = this.#selected === null;
    const moves: Readonly<Record<string, number>> = {
      ...{ up: this.#at - 1, k: this.#at - 1, home: 0, g: 0, end: last, G: last },
      ...{ down: none ? this.#at : this.#at + 1, j: none ? this.#at : this.#at + 1 },
      ...{ 'page-up': this.#at - this.#page, 'page-down': this.#at + this.#page },
    };
    const to = moves[word];
    if (to === undefined) return false;
    this.#at = Math.max(0, Math.min(last, to));
    this.#selected = this.#vms()[this.#at]?.name ?? null;
    return true;
  }

  #open(): void {
    if (this.#selected === null) this.#move('home');
    if (this.#selected === null) return;
    this.#detailOffset = 0;
    this.#mode = 'detail';
  }

  #vms(): VmView[] {
    return sortVms(this.#seen.vms, this.#sort, this.#filter);
  }

  /** The selected VM is found by its name wherever it went; one that is gone leaves its place to its neighbour. */
  #findSelected(vms: readonly VmView[]): void {
    if (this.#selected === null) return;
    const at = vms.findIndex(({ name }) => name === this.#selected);
    if (at >= 0) this.#at = at;
    else {
      this.#at = Math.max(0, Math.min(this.#at, vms.length - 1));
      this.#selected = vms[this.#at]?.name ?? null;
    }
  }

  #list(columns: number, rows: number, output: Output): string[] {
    const vms = this.#vms();
    this.#findSelected(vms);
    const {
      nameColumns,
      head,
      rows: table,
      legend,
    } = vmTable(vms, this.#seen.policy, this.#samples, columns);
    const page = Math.max(1, rows - FRAME_ROWS - (legend === null ? 0 : 1));
    this.#page = page;
    if (this.#selected !== null) {
      this.#offset = Math.max(this.#at - page + 1, Math.min(this.#offset, this.#at));
    }
    this.#offset = Math.max(0, Math.min(this.#offset, table.length - page));
    const shown = table.slice(this.#offset, this.#offset + page).map(({ name, rest }, n) => {
      // Terminals do not agree on how wide each name is, so the rest is put where it belongs.
      const line = rest === '' ? name : `${name}  \x1b[${nameColumns + 3}G${rest}`;
      const selected = this.#selected !== null && this.#offset + n === this.#at;
      return selected ? `\x1b[7m${line}\x1b[K\x1b[27m` : line;
    });
    const room = Math.max(0, page - shown.length);
    const notes = verdictLines(vms, columns).slice(0, room);
    return [
      ...summaryLines(this.#seen, columns),
      output.paint('bold', head),
      ...shown,
      ...notes.map((line) => output.paint('red', line)),
      ...(legend === null ? [] : [legend]),
    ];
  }

  #detail(columns: number, rows: number): string[] {
    const vm = this.#seen.vms.find(({ name }) => name === this.#selected);
    const plain: Output = { ...PLAIN, columns };
    const lines =
      vm === undefined ? [`${printable(this.#selected ?? '')} is gone`] : renderVm(vm, plain).split('\n');
    this.#page = Math.max(1, rows - 1);
    this.#detailOffset = Math.max(0, Math.min(this.#detailOffset, lines.length - this.#page));
    return lines
      .slice(this.#detailOffset, this.#detailOffset + this.#page)
      .map((line) => shorten(line, columns));
  }

  #help(): string {
    if (this.#mode === 'detail') return DETAIL_KEYS;
    if (this.#mode === 'filter') return `/${this.#filter}_  ${FILTER_KEYS}`;
    const total = this.#vms().length;
    const from = Math.min(total, this.#offset + 1);
    const to = Math.min(total, this.#offset + this.#page);
    const filter = this.#filter === '' ? '' : ` with "${printable(this.#filter)}" (Esc: all)`;
    return `${from}-${to} of ${total}${filter} by ${this.#sort}  ${LIST_KEYS}`;
  }
}

const PLAIN = {
  json: false,
  print: (): void => undefined,
  document: (): void => undefined,
  paint: (_: unknown, text: string): string => text,
};
