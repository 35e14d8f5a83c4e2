import { Column, emptyState, get, moveRows, type PolicyState } from '../policy/state.js';

/** The VMs of the policy's table by their rows, and the memory that the policy has of them. */
export class Roster {
  state: PolicyState = emptyState(0);
  #names: readonly string[] = [];
  #rows = new Map<string, number>();

  get names(): readonly string[] {
    return this.#names;
  }

  /** The rows are these VMs from now on. Returns the names of those that are gone, which are forgotten. */
  follow(names: readonly string[]): readonly string[] {
    const before = this.#names;
    if (names.length === before.length && names.every((name, row) => name === before[row])) return [];
    this.state = moveRows(
      this.state,
      names.map((name) => this.#rows.get(name) ?? -1),
    );
    this.#names = names;
    this.#rows = new Map(names.map((name, row) => [name, row]));
    return before.filter((name) => !this.#rows.has(name));
  }

  /** Forgets all that the policy remembers of its VMs, which stay. */
  forget(): void {
    this.state = emptyState(this.#names.length);
  }

  /** The figure that the policy remembers of a VM; 0 where it knows no VM of that name. */
  remembered(name: string, column: Column): number {
    const row = this.#rows.get(name);
    return row === undefined ? 0 : get(this.state, column, row);
  }
}
