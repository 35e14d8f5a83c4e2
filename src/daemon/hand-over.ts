import { passedFds } from '../../protocol/systemd.js';
import { EventLog, type LogSink } from '../ops/event-log.js';
import { takeOverEvents } from '../ops/event-memory.js';
import { takeOverHistory, type HistoryMemory } from '../ops/history-memory.js';
import { FdStore } from '../ops/fd-store.js';
import { SystemError } from '../os/errors.js';
import { boundPath } from '../os/socket.js';
import type { LeftAlone } from './arrivals.js';
import type { VmFleet } from './fleet.js';
import type { Holder } from './holder.js';
import type { VmmSockets } from './vmm-sockets.js';

/** What the daemon before this one handed over, and the store for the daemon after it. */
export class HandOver {
  /** Null where nobody keeps anything for this process. */
  readonly store: FdStore | null;
  /** VMs hang until a daemon serves them: nothing that can be mended later is a reason not to. */
  readonly vmsWait: boolean;

  /** `failed` hears why something cannot be handed over. Throws SystemError. */
  constructor({ by, socket, most }: Holder, failed: (reason: string) => void) {
    this.store = by === null ? null : new FdStore(socket, most, passedFds(process.env, process.pid), failed);
    this.vmsWait = this.store !== null && this.store.left('connection').length > 0;
  }

  /** Events go on where those of the daemon before this one ended. A trouble with them is a warning, and ends nothing. */
  events(log: LogSink): { events: EventLog; warnings: readonly string[] } {
    const { store } = this;
    if (store === null) return { events: new EventLog(log), warnings: [] };
    const memories = store.left('events').flatMap((name) => store.claim(name) ?? []);
    try {
      const { memory, setAside } = takeOverEvents(memories);
      store.keep(memory.fd, 'events');
      return { events: new EventLog(log, memory), warnings: setAside };
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      const warning = `the events of this daemon are not handed over to the next one: ${error.message}`;
      return { events: new EventLog(log), warnings: [warning] };
    }
  }

  /** The samples of the last hour, which go on. Throws SystemError. */
  history(): HistoryMemory {
    const { store } = this;
    const memory = takeOverHistory(store?.left('history').flatMap((name) => store.claim(name) ?? []) ?? []);
    store?.keep(memory.fd, 'history');
    return memory;
  }

  /** Goes on with each VM that the daemon before this one served. Returns those with which that is impossible. */
  resumeAll(fleet: VmFleet): LeftAlone[] {
    const { store } = this;
    const states = store?.left('state').map((name) => store.claim(name)) ?? [];
    return states.map((fd) => (fd === null ? null : fleet.resume(fd))).filter((alone) => alone !== null);
  }

  /**
   * Serves connections of which the daemon before this one had written nothing down yet. The rest of its files are
   * nobody's, unless a VM waits for another build.
   */
  adoptRest(fleet: VmFleet, sockets: VmmSockets, alone: readonly LeftAlone[]): void {
    const { store } = this;
    const others = alone.map(({ connection }) => connection);
    if (store === null || others.includes(null)) return;
    for (const name of store.left('connection').filter((each) => !others.includes(each))) {
      const fd = store.claim(name);
      if (fd !== null) fleet.adopt(fd, sockets.settings(boundPath(fd)));
    }
    if (alone.length === 0) store.dropLeft();
  }
}
