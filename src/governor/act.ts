/** Does what a policy decided, or says what the policy would do. */
import type { EventName } from '../../protocol/control/events.js';
import { pastWords } from '../../protocol/control/past-words.js';
import type { PolicyAdvice } from '../../protocol/control/schema.js';
import type { Emit } from '../ops/event-log.js';
import type { PolicyCount } from '../ops/policy-families.js';
import { wallTime } from '../os/clock.js';
import type { Action, Cause, LimitAction } from '../policy/action.js';
import type { GovernedVm } from './governed-vm.js';
import { messageOf, type Troubles } from './troubles.js';

/** The last sentence about a VM, and its wall time. */
export interface Said {
  readonly text: string;
  readonly at: string;
}

/** An action with the VM that it is about, the name at its other end (`host` or `pool` where that is no VM), and its sentence. */
export interface Deed {
  readonly action: Action;
  readonly vm: GovernedVm;
  readonly other: string;
  /** The size of the pages of the pool that the memory is of; null: the memory is of the host's RAM. */
  readonly poolPageBytes: number | null;
  readonly text: string;
  /** How long ago the VM was last asked for memory or forced, by the clock that the policy goes by. */
  readonly sinceSeconds: number;
}

/** The action that a deed would be, for operators. */
export function adviceOf({ action, vm, text }: Deed): PolicyAdvice[number] {
  const isTarget = action.kind === 'target' || action.kind === 'cache-limit';
  const [fromBytes, toBytes] = isTarget
    ? [Math.round(action.fromBytes), Math.round(action.toBytes)]
    : [null, null];
  return { vm: vm.name, action: action.kind, fromBytes, toBytes, cause: action.reason.cause, says: text };
}

export class Actor {
  readonly #emit: Emit;
  readonly #troubles: Troubles;
  readonly #said = new Map<string, Said>();
  /** The kinds of advice at the tick before, each with its VM: only news are told. */
  #advised: ReadonlySet<string> = new Set();
  readonly #counts: { action: string; reason: Cause; count: number }[] = [];

  constructor(emit: Emit, troubles: Troubles) {
    this.#emit = emit;
    this.#troubles = troubles;
  }

  /** The actions since the daemon began, by `took`, `gave`, `forced` or `released`, and their causes. */
  get counts(): readonly PolicyCount[] {
    return this.#counts;
  }

  said(name: string): Said | undefined {
    return this.#said.get(name);
  }

  forget(name: string): void {
    this.#said.delete(name);
  }

  do(deed: Deed): void {
    const { action, vm, other } = deed;
    this.#say(vm.name, deed.text);
    switch (action.kind) {
      case 'target': {
        const bytes = Math.abs(action.toBytes - action.fromBytes);
        if (action.toBytes > action.fromBytes)
          this.#tell(deed, 'policy-took', { donor: vm.name, receiver: other, bytes });
        else this.#tell(deed, 'policy-gave', { donor: other, receiver: vm.name, bytes });
        vm.setPolicyTarget(action.toBytes);
        return;
      }
      case 'cache-limit': {
        const { fromBytes, toBytes } = action;
        this.#tell(deed, 'policy-cache-limit', { fromBytes, toBytes });
        vm.setCacheLimit(toBytes);
        return;
      }
      case 'limit':
        this.#limit(deed, action);
        return;
      case 'kill':
        this.#tell(deed, 'policy-forced', { killed: vm.pid, graceSeconds: deed.sinceSeconds });
        this.#kill(vm);
    }
  }

  /** Says what the policy would do where it only observes. */
  advise(deeds: readonly Deed[]): void {
    const advised = new Set<string>();
    for (const { action, vm, text } of deeds) {
      const kind = `${action.kind} ${action.reason.cause} ${vm.name}`;
      advised.add(kind);
      const words = `would have ${pastWords(text)}`;
      this.#say(vm.name, words);
      if (!this.#advised.has(kind))
        this.#emit('policy-advice', words, { cause: action.reason.cause }, vm.name);
    }
    this.#advised = advised;
  }

  /** Takes force from a VM whose memory went elsewhere. */
  release(vm: GovernedVm): void {
    this.#hold(vm, null, null);
  }

  #limit(deed: Deed, { highBytes, maxBytes, rung, reason }: LimitAction): void {
    const { sinceSeconds } = deed;
    const fields = { highBytes, maxBytes, rung };
    if (reason.cause === 'not-yielding')
      this.#tell(deed, 'policy-forced', { ...fields, graceSeconds: sinceSeconds });
    else this.#tell(deed, 'policy-released', fields);
    this.#hold(deed.vm, highBytes, maxBytes);
  }

  #hold(vm: GovernedVm, highBytes: number | null, maxBytes: number | null): void {
    vm.force(highBytes, maxBytes).catch((error: unknown) => {
      const why = messageOf(error);
      this.#troubles.tell(`force on ${vm.name}`, `${vm.name} cannot be held to less: ${why}`);
    });
  }

  #kill({ name, pid }: GovernedVm): void {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      this.#troubles.tell(`kill of ${name}`, `${name} cannot be killed: ${messageOf(error)}`);
    }
  }

  #tell({ action, vm, text, poolPageBytes }: Deed, event: EventName, fields: Record<string, unknown>): void {
    const { cause, hostAvailableBytes } = action.reason;
    const stock =
      poolPageBytes === null
        ? { hostAvailableBytes }
        : { poolPageBytes, poolAvailableBytes: hostAvailableBytes };
    this.#emit(event, text, { cause, ...stock, ...fields }, vm.name);
    const name = event.replace('policy-', '');
    const entry = this.#counts.find((known) => known.action === name && known.reason === cause);
    if (entry === undefined) this.#counts.push({ action: name, reason: cause, count: 1 });
    else entry.count++;
  }

  #say(name: string, text: string): void {
    this.#said.set(name, { text, at: wallTime() });
  }
}
