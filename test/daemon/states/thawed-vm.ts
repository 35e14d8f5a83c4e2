import { readSync, writeSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import type { VmView } from '../../../protocol/control/schema.js';
import { deviceOptions } from '../../../src/daemon/settings.js';
import { isOfferable } from '../../../src/vm/kinds.js';
import type { OrderBook } from '../../../src/vm/order-book.js';
import { vmView } from '../../../src/vm/view.js';
import type { Vm } from '../../../src/vm/vm.js';
import { decodeVmRecord, encodeVmRecord, type VmRecord } from '../../../src/vm/record.js';
import { StateFile } from '../../../src/memory/state-file.js';
import { createEventFd, drainEvent } from '../../../src/os/eventfd.js';
import { closeFd, duplicateFd, setFileOffset } from '../../../src/os/fd.js';
import { createMemfd } from '../../../src/os/memfd.js';
import { socketPair } from '../../../src/os/socket.js';
import { NamedFds } from '../../fuzz/named-fds.js';
import { RawPeer } from '../../fuzz/raw-peer.js';
import { PAGE_BYTES } from '../../support/guest-ram.js';
import { serveDevice } from '../../support/served-vm.js';
import { encodeConfig, encodeMessage, REQUEST, VERSION } from '../../support/wire.js';
import type { FrozenVm } from './frozen-vm.js';

const CONFIG_BYTES = 16;

/** A VM that a daemon of some time ago served, with all its files as they were, served by this build. */
export class ThawedVm {
  readonly vm: Vm;
  readonly #state: StateFile;
  readonly #fds = new NamedFds();
  readonly #memory: { gpa: number; fd: number }[] = [];
  readonly #eventFds: number[];
  readonly #peer: RawPeer;
  readonly #channel: number;
  ended = false;

  /** `change`: what else was written down of it. Throws StateError when it cannot be gone on with. */
  constructor(
    frozen: FrozenVm,
    change: (record: VmRecord) => VmRecord = (record) => record,
    book?: OrderBook,
  ) {
    const connections = socketPair();
    const channel = socketPair();
    this.#peer = new RawPeer(connections[1]);
    this.#channel = channel[1];
    this.#fds.put(frozen.connection, connections[0]);
    if (frozen.channel === null) closeFd(channel[0]);
    else this.#fds.put(frozen.channel, channel[0]);
    for (const { fd, bytes } of frozen.memory) this.#fds.put(fd, file('guest-ram', bytes));
    this.#eventFds = frozen.eventFds.map((name) => {
      const fd = createEventFd();
      this.#fds.put(name, duplicateFd(fd));
      return fd;
    });
    const fd = file('balloond-state', frozen.state);
    setFileOffset(fd, frozen.stateOffset);
    this.#state = StateFile.open(fd);
    const found = change(decodeVmRecord(this.#state.record()));
    this.#state.stage(encodeVmRecord(found));
    this.#state.save();
    for (const { gpa, fd: name } of found.session.regions) {
      this.#memory.push({ gpa: Number(gpa), fd: this.#fds.claim(name) ?? -1 });
    }
    const defaults = deviceOptions({}, null, found.name);
    const options = { ...defaults, features: found.features.filter(isOfferable), statsIntervalSeconds: 0 };
    const { vm } = serveDevice(
      this.#fds.claim(found.connection) ?? -1,
      { name: found.name, pid: found.pid, options },
      { keeper: this.#fds, state: this.#state, found },
      () => undefined,
      () => (this.ended = true),
      book === undefined ? {} : { book },
    );
    this.vm = vm;
  }

  get view(): VmView {
    return vmView(this.vm, null);
  }

  /** What is written down of it now. */
  get record(): string {
    return this.#state.record();
  }

  /** How many of its eventfds were raised since it was asked last. */
  signalled(): number {
    return this.#eventFds.filter((fd) => drainEvent(fd) > 0n).length;
  }

  page(pfn: number): Uint8Array {
    const gpa = pfn * PAGE_BYTES;
    const region = this.#memory.findLast((each) => each.gpa <= gpa);
    const bytes = new Uint8Array(PAGE_BYTES);
    if (region !== undefined) readSync(region.fd, bytes, 0, PAGE_BYTES, gpa - region.gpa);
    return bytes;
  }

  /** Asks as the VMM does; the reply comes some turns of the event loop later. */
  askConfig(): void {
    const payload = encodeConfig(0, new Uint8Array(CONFIG_BYTES));
    this.#peer.send(encodeMessage(REQUEST.GET_CONFIG, VERSION, payload), []);
  }

  readReply(): Uint8Array {
    return this.#peer.read() ?? new Uint8Array(0);
  }

  close(): void {
    this.#peer.close();
    closeFd(this.#channel);
    this.#eventFds.forEach(closeFd);
    for (const { fd } of this.#memory) closeFd(fd);
    this.#fds.close();
  }
}

function file(name: string, packed: string): number {
  const bytes = brotliDecompressSync(Buffer.from(packed, 'base64'));
  const fd = createMemfd(name, bytes.length);
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at);
  return fd;
}
