/** A fleet in memory behind a real control server, and an HTTP client that hides nothing of the answers. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { DiagnosisCode } from '../../protocol/control/diagnosis.js';
import { EVENTS, type EventName } from '../../protocol/control/events.js';
import { byName } from '../../protocol/control/limits.js';
import type { LiveHistory, LiveTick } from '../../protocol/control/live.js';
import type {
  AdoptChange,
  AdoptedSocket,
  DaemonChange,
  DaemonView,
  LimitRequest,
  PolicyAdvice,
  PolicyChange,
  PolicyState,
  ReloadReport,
  TargetRequest,
  VmOrders,
  VmView,
  DaemonEvent,
} from '../../protocol/control/schema.js';
import { passedOn } from '../../protocol/control/refusal.js';
import { RefusedError, type DaemonControl, type EventSource, type Fleet } from '../../src/control/fleet.js';
import { Metrics } from '../../src/ops/metrics.js';
import type { Refusal } from '../../src/control/http.js';
import type { History } from '../../src/control/live-feed.js';
import { startControlServer } from '../../src/control/server.js';

export const GIB = 1024 ** 3;
export const VERSION = '1.2.3';
/** Of balloonctl, which is of this tree. */
export const { version: OWN_VERSION } = JSON.parse(
  readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
) as { version: string };

/** A running VM of 4 GiB with nothing in its balloon. */
export function vmView(name: string, change: Partial<VmView> = {}): VmView {
  return {
    name,
    pid: 4242,
    kind: 'vhost-user',
    socket: null,
    state: 'running',
    ramBytes: 4 * GIB,
    memory: { sharedBytes: 4 * GIB, discardableBytes: 4 * GIB, ramBytes: 4 * GIB, allocatedBytes: 2 * GIB },
    balloon: {
      targetBytes: 0,
      actualBytes: 0,
      actualUnknown: false,
      pendingBytes: 0,
      refilledBytes: 0,
      pinnedBytes: 0,
      discardedBytesTotal: 0,
      inflatedBytesTotal: 0,
      deflatedBytesTotal: 0,
      reportedBytesTotal: 0,
      discardSecondsTotal: 0,
    },
    cache: null,
    inhibited: null,
    verdict: null,
    diagnosis: null,
    features: ['VIRTIO_BALLOON_F_MUST_TELL_HOST', 'VIRTIO_BALLOON_F_STATS_VQ', 'VIRTIO_F_VERSION_1'],
    stats: {
      ageSeconds: 3.2,
      VIRTIO_BALLOON_S_MEMFREE: 2.5 * GIB,
      VIRTIO_BALLOON_S_AVAIL: 3 * GIB,
      VIRTIO_BALLOON_S_MAJFLT: 17,
      'tag-16': 5,
    },
    cgroup: null,
    limits: { ...byName(() => null), mayUseBytes: 4 * GIB, problem: null, diagnosis: null },
    policy: null,
    orders: [],
    statsIntervalSeconds: 10,
    ...change,
  };
}

/** A verdict as a daemon gives it, for people and for programs. */
export function verdict(
  code: DiagnosisCode,
  text: string,
  remedy: string,
): Pick<VmView, 'verdict' | 'diagnosis'> {
  return { verdict: `${text}: ${remedy}`, diagnosis: { code, text, remedy } };
}

export class MemoryFleet implements Fleet {
  readonly #vms = new Map<string, VmView>();
  #orders = 0;
  /** Why everything is refused; null: nothing is. */
  refusal: string | null = null;
  /** Runs before each look at a VM, so that a test can let time pass between two. */
  onFind: (name: string) => void = () => undefined;

  constructor(...vms: VmView[]) {
    for (const vm of vms) this.put(vm);
  }

  put(vm: VmView): void {
    this.#vms.set(vm.name, vm);
  }

  remove(name: string): void {
    this.#vms.delete(name);
  }

  /** The guest has `bytes` in its balloon from now on. */
  inflate(name: string, bytes: number): void {
    const vm = this.#get(name);
    this.put({ ...vm, balloon: { ...vm.balloon, actualBytes: bytes } });
  }

  list(): VmView[] {
    return [...this.#vms.values()];
  }

  find(name: string): VmView | undefined {
    this.onFind(name);
    return this.#vms.get(name);
  }

  names(): readonly string[] {
    return [...this.#vms.keys()];
  }

  async setTarget(name: string, target: TargetRequest): Promise<VmView> {
    await Promise.resolve();
    const vm = this.#get(name);
    if ('cacheLimitBytes' in target) {
      return this.#replace({ ...vm, cache: { ...vm.balloon, targetBytes: target.cacheLimitBytes } });
    }
    return this.#replace({ ...this.tryTarget(name, target), orders: [this.#order()] });
  }

  tryTarget(name: string, target: TargetRequest): VmView {
    const vm = this.#get(name);
    if ('cacheLimitBytes' in target) {
      return { ...vm, cache: { ...vm.balloon, targetBytes: target.cacheLimitBytes } };
    }
    const targetBytes =
      'memoryBytes' in target ? Math.max(0, vm.ramBytes - target.memoryBytes) : target.balloonBytes;
    return {
      ...vm,
      balloon: { ...vm.balloon, targetBytes },
      orders: [{ order: 'target', says: 'a target', by: 'operator', since: null, undo: '' }],
    };
  }

  /** Each is given at another time. */
  #order(): VmView['orders'][number] {
    const since = new Date(++this.#orders).toISOString();
    return { order: 'target', says: 'a target', by: 'operator', since, undo: 'balloonctl policy resume' };
  }

  async setLimits(name: string, asked: LimitRequest): Promise<VmView> {
    await Promise.resolve();
    const vm = this.#get(name);
    const kept = byName((limit) => {
      const word = asked[limit];
      return word === undefined || word === 'restore' ? null : word;
    });
    return this.#replace({ ...vm, limits: { ...vm.limits, ...kept } });
  }

  async setStatsInterval(name: string, statsIntervalSeconds: number): Promise<VmView> {
    await Promise.resolve();
    return this.#replace({ ...this.#get(name), statsIntervalSeconds });
  }

  async refreshStats(name: string, timeoutMs: number): Promise<VmView> {
    this.onFind(name);
    await Promise.resolve();
    const vm = this.#get(name);
    return this.#replace({ ...vm, stats: { ...vm.stats, ageSeconds: 0, 'tag-timeout': timeoutMs } });
  }

  /** Its VMs have no meters. */
  metrics(): Promise<Buffer> {
    return new Metrics(() => [], VERSION).text();
  }

  live(): LiveTick {
    const vms = this.list().map((vm) => {
      const { name, kind, state, ramBytes, balloon, cache, verdict, inhibited, policy } = vm;
      const { targetBytes, actualBytes, actualUnknown, refilledBytes } = balloon;
      return {
        name,
        kind,
        state,
        band: policy?.band ?? null,
        mode: policy?.mode ?? null,
        force: 'none' as const,
        inhibited,
        ramBytes,
        targetBytes,
        actualBytes,
        actualUnknown,
        cacheBytes: cache?.actualBytes ?? null,
        allocatedBytes: ramBytes,
        availableBytes: vm.stats?.['VIRTIO_BALLOON_S_AVAIL'] ?? null,
        workingSetBytes: null,
        refilledBytes: refilledBytes ?? 0,
        verdict,
      };
    });
    const { mode, paused, bands, reserveBytes } = this.policyState;
    return {
      time: Date.now(),
      hostTotalBytes: 64 * GIB,
      hostAvailableBytes: 32 * GIB,
      policy: { mode, paused, bands, reserveBytes, part: null, pressurePercent: 1.5 },
      vms,
    };
  }

  async setInhibited(name: string, reason: string | null): Promise<VmView> {
    await Promise.resolve();
    return this.#replace({ ...this.#get(name), inhibited: reason });
  }

  /** Of VMs that are not connected; those of connected VMs are in their views. */
  readonly waiting = new Map<string, VmView['orders']>();

  orders(): VmOrders[] {
    const here = this.list().map(({ name, orders }) => ({ vm: name, connected: true, orders }));
    const away = [...this.waiting].map(([vm, orders]) => ({ vm, connected: false, orders }));
    return [...here, ...away].filter(({ orders }) => orders.length > 0);
  }

  ordersOf(name: string): VmOrders {
    return this.orders().find(({ vm }) => vm === name) ?? { vm: name, connected: false, orders: [] };
  }

  async takeBackOrders(name: string): Promise<VmOrders> {
    await Promise.resolve();
    const taken = this.ordersOf(name);
    if (taken.connected) this.put({ ...this.#get(name), orders: [] });
    else this.waiting.delete(name);
    return taken;
  }

  readonly #adopted = new Map<string, AdoptedSocket>();

  adopted(): AdoptedSocket[] {
    return [...this.#adopted.values()];
  }

  async changeAdopted({ path, adopted }: AdoptChange): Promise<AdoptedSocket> {
    await Promise.resolve();
    if (this.refusal !== null) throw new RefusedError(passedOn(this.refusal));
    const name = path.split('/').at(-1) ?? path;
    const socket: AdoptedSocket = { path, by: 'operator', vm: name, problem: null };
    if (adopted) {
      this.#adopted.set(path, socket);
      this.put(vmView(name, { kind: 'qmp', socket: path }));
    } else {
      this.#adopted.delete(path);
      this.remove(name);
    }
    return socket;
  }

  policyState: PolicyState = {
    mode: 'auto',
    paused: false,
    problem: null,
    reserveBytes: GIB,
    host: null,
    bands: ['gold', 'silver', 'bronze'],
    vms: [],
    orders: [],
  };

  policy(): PolicyState {
    return this.policyState;
  }

  policyAdvice: PolicyAdvice = [];

  advice(): PolicyAdvice {
    return this.policyAdvice;
  }

  async changePolicy(change: PolicyChange): Promise<PolicyState> {
    await Promise.resolve();
    if ('mode' in change) {
      this.policyState = { ...this.policyState, mode: change.mode ?? 'observe' };
      return this.policyState;
    }
    const { paused, vm } = change;
    if (vm !== undefined) this.#get(vm);
    if (vm === undefined) {
      const pause = { order: 'policy', says: 'the policy leaves all VMs alone', by: 'operator' } as const;
      const since = '2026-11-23T12:04:00.123Z';
      const orders = paused ? [{ ...pause, since, undo: 'balloonctl policy resume' }] : [];
      this.policyState = { ...this.policyState, paused, orders };
    }
    return this.policyState;
  }

  #get(name: string): VmView {
    if (this.refusal !== null) throw new RefusedError(passedOn(this.refusal));
    const vm = this.#vms.get(name);
    if (vm === undefined) throw new Error(`no VM ${name}`);
    return vm;
  }

  #replace(vm: VmView): VmView {
    this.put(vm);
    return vm;
  }
}

/** The samples of pages, without an end. */
export class MemoryHistory implements History {
  readonly #samples: { time: number; samples: ReadonlyMap<string, number> }[] = [];

  add(time: number, samples: ReadonlyMap<string, number>): void {
    this.#samples.push({ time, samples });
  }

  read(_now: number, wanted: (name: string) => boolean): LiveHistory {
    const names = new Set(this.#samples.flatMap(({ samples }) => [...samples.keys()]).filter(wanted));
    const values = (name: string) => this.#samples.map(({ samples }) => samples.get(name) ?? null);
    return {
      times: this.#samples.map(({ time }) => time),
      series: Object.fromEntries([...names].map((name) => [name, values(name)])),
    };
  }
}

export class MemoryEvents implements EventSource {
  readonly epoch = 'abcdef01';
  readonly #ring: DaemonEvent[] = [];
  #forgotten = 0;
  readonly #listeners = new Set<(event: DaemonEvent) => void>();

  get subscribers(): number {
    return this.#listeners.size;
  }

  emit(event: EventName, message: string, vm?: string, time?: Date): DaemonEvent {
    const seq = this.newest + 1;
    const record: DaemonEvent = {
      seq,
      epoch: this.epoch,
      id: `${this.epoch}-${seq}`,
      time: (time ?? new Date(Date.UTC(2025, 0, 1, 12, 0, seq))).toISOString(),
      event,
      level: EVENTS[event].level,
      message,
      fields: {},
      ...(vm !== undefined && { vm }),
    };
    this.#ring.push(record);
    for (const listener of this.#listeners) listener(record);
    return record;
  }

  get newest(): number {
    return this.#forgotten + this.#ring.length;
  }

  /** As when there were too many of them. */
  forget(count: number): void {
    this.#forgotten += this.#ring.splice(0, count).length;
  }

  recent(sinceSeq: number): DaemonEvent[] {
    return this.#ring.filter(({ seq }) => seq > sinceSeq);
  }

  subscribe(listener: (event: DaemonEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

export interface ControlFixture {
  readonly socketPath: string;
  readonly fleet: MemoryFleet;
  readonly events: MemoryEvents;
  readonly daemon: MemoryDaemon;
  /** Everything the server refused, oldest first. */
  readonly refusals: Refusal[];
  readonly close: () => Promise<void>;
}

/** A daemon that systemd holds, as it says of itself. */
export function daemonView(change: Partial<DaemonView> = {}): DaemonView {
  return {
    version: OWN_VERSION,
    pid: process.pid,
    startedAt: '2025-01-01T12:00:00.000Z',
    holder: 'systemd',
    heldOver: 'stop',
    holderProblem: null,
    holderRemedy: null,
    configMistake: null,
    problems: [],
    configFiles: ['/etc/balloond.toml'],
    control: '/run/balloond/control.sock',
    logLevel: 'info',
    ...change,
  };
}

/** What of the daemon is not its VMs, in memory. */
export class MemoryDaemon implements DaemonControl {
  state = daemonView();
  reloads = 0;

  view(): DaemonView {
    return this.state;
  }

  change({ logLevel }: DaemonChange): DaemonView {
    this.state = { ...this.state, logLevel };
    return this.state;
  }

  reload(dryRun = false): ReloadReport {
    if (!dryRun) this.reloads++;
    return {
      file: '/etc/balloond.toml',
      files: ['/etc/balloond.toml'],
      changes: [{ key: 'control', effect: 'restart' }],
    };
  }
}

/** Serves `fleet` on a socket of its own until the test ends. */
export async function serveFleet(t: Test, fleet = new MemoryFleet(vmView('web1'))): Promise<ControlFixture> {
  const socketPath = join(temporaryFolder(t), 'control.sock');
  const events = new MemoryEvents();
  const refusals: Refusal[] = [];
  const daemon = new MemoryDaemon();
  const server = await startControlServer(socketPath, fleet, events, VERSION, daemon, (refusal) =>
    refusals.push(refusal),
  );
  let closing: Promise<void> | null = null;
  const close = () => (closing ??= server.close());
  t.teardown(close);
  return { socketPath, fleet, events, daemon, refusals, close };
}

/** Short enough for the 107 bytes of a socket's path. */
export function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'balloond-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body as JSON. */
  readonly document: unknown;
}

/** `body` goes out as it is. */
export function call(
  socketPath: string,
  method: string,
  path: string,
  body?: string | Buffer,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, method, path, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (text += chunk));
      response.on('error', reject);
      response.on('end', () => {
        const { statusCode: status = 0, headers } = response;
        resolve({
          status,
          headers,
          text,
          get document(): unknown {
            return JSON.parse(text) as unknown;
          },
        });
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}
