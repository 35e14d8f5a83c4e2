/** The events that the daemon remembers and those that come, newest first. */
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { clockOf } from './show-chart.js';
import { byId, make } from './show-parts.js';

const EVENTS_SHOWN = 200;

export class EventList {
  #events: DaemonEvent[] = [];
  #vm: string | null = null;

  constructor() {
    byId('of-policy').addEventListener('input', () => this.#show());
  }

  clear(): void {
    this.#events = [];
    byId('events').replaceChildren();
  }

  add(event: DaemonEvent): void {
    this.#events.push(event);
    if (this.#events.length > 5 * EVENTS_SHOWN) this.#events = this.#events.slice(-4 * EVENTS_SHOWN);
    if (!this.#isShown(event)) return;
    const list = byId('events');
    list.prepend(itemOf(event));
    while (list.childElementCount > EVENTS_SHOWN) list.lastElementChild?.remove();
  }

  /** Shows the events of one VM; null: of all. */
  only(vm: string | null): void {
    this.#vm = vm;
    this.#show();
  }

  #isShown({ vm, event }: DaemonEvent): boolean {
    const policy = (byId('of-policy') as HTMLInputElement).checked;
    return (this.#vm === null || vm === this.#vm) && (!policy || event.startsWith('policy-'));
  }

  #show(): void {
    const shown = this.#events.filter((event) => this.#isShown(event)).slice(-EVENTS_SHOWN);
    byId('events').replaceChildren(...shown.reverse().map(itemOf));
  }
}

function itemOf({ time, level, vm, event, message }: DaemonEvent): HTMLElement {
  const item = make('li', level);
  const moment = make('time', '', clockOf(Date.parse(time)));
  moment.dateTime = time;
  item.append(moment, ` ${vm === undefined ? '' : `${vm}: `}${message} (${event})`);
  return item;
}
