/** Small elements of the page. */
import { clockOf, type Line } from './show-chart.js';
import type { Mark } from './marks.js';
import { badgesOf } from './model.js';
import type { LiveVm } from '../../protocol/control/live.js';
import { formatSize } from '../../protocol/control/size.js';

const SVG = 'http://www.w3.org/2000/svg';

export function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no ${id}`);
  return element;
}

/** An element of this name with a class and a text. */
export function make<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  className = '',
  text = '',
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  if (className !== '') element.className = className;
  if (text !== '') element.textContent = text;
  return element;
}

export function svg(name: 'svg' | 'path', attributes: Record<string, string | number>): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

/** Only what changes is written. */
export function write(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function showBadges(box: HTMLElement, vm: LiveVm): void {
  const badges = badgesOf(vm);
  const words = badges.map(({ text, title }) => `${text} ${title}`).join('\n');
  if (box.dataset['words'] === words) return;
  box.dataset['words'] = words;
  box.replaceChildren(
    ...badges.map(({ kind, text, title }) => {
      const badge = make('span', `badge ${kind}`, text);
      badge.title = title;
      return badge;
    }),
  );
}

/** The keys of the lines, with their values at a sample, and what the policy did around it. */
export function showReading(
  box: HTMLElement,
  {
    times,
    lines,
  }: { times: readonly number[]; lines: readonly (Line & { own?: readonly (number | null)[] })[] },
  at: number,
  marks: readonly Mark[],
): void {
  const keys = lines.map(({ label, colour, own, values, percent }) => {
    const value = (own ?? values)[at] ?? null;
    const key = make('span', 'key');
    const swatch = make('span', `swatch ${colour.replace('--', 'of-')}`);
    const words = value === null ? 'unknown' : percent === true ? `${value} %` : formatSize(value);
    key.append(swatch, `${label} `, make('b', '', words));
    return key;
  });
  const moment = make('span', 'moment', clockOf(times[at] ?? 0));
  const notes = marks.slice(-3).map(({ message }) => make('span', 'mark', message));
  box.replaceChildren(moment, ...keys, ...notes);
}
