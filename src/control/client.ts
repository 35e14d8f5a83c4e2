/** The client of the control API. It loads nothing but node:http and node:net, so that balloonctl starts fast. */
import { readFileSync, statSync } from 'node:fs';
import {
  passedOn,
  refusal,
  RefusingError,
  type NextStep,
  type RefusalText,
} from '../../protocol/control/refusal.js';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type {
  AdoptChange,
  AdoptedSocket,
  DaemonChange,
  DaemonView,
  LimitRequest,
  PolicyAdvice,
  PolicyChange,
  PolicyState,
  ProblemDocument,
  ReloadReport,
  TargetRequest,
  VmStats,
  VmOrders,
  VmView,
  DaemonEvent,
} from '../../protocol/control/schema.js';

/** A busy host is not a daemon that is stuck: that one the watchdog ends after 10 s, which ends the connection. */
const REPLY_TIMEOUT_MS = 60_000;
/** The time in which a daemon that ended is started again, also on a busy host. */
const RESTART_MS = 20_000;
/** A restart that takes longer is told of. */
const AWAY_MS = 1000;
/** Doubled after each attempt: a daemon that turns clients away is busy. */
const RETRY_MS = 50;
const RETRY_MS_MAX = 800;

/** Requests of one client that are under way at a time, of the connections that the daemon has for all clients. */
const AT_A_TIME = 8;

const START =
  'run systemctl start balloond.service (without systemd, balloond --supervise), or give --control PATH';

/** No answer from a daemon at this socket; the message says why and what to do. */
export class UnreachableError extends RefusingError {
  override readonly name = 'UnreachableError';

  /** `mayComeBack`: a daemon was there, and the next one may be on its way. */
  constructor(
    text: RefusalText,
    readonly mayComeBack = false,
    /** The error of the kernel, where one is the cause. */
    readonly code: string | null = null,
  ) {
    super(text);
  }
}

/** The daemon refused or failed; the message is the problem's detail. */
export class ControlError extends RefusingError {
  override readonly name = 'ControlError';

  constructor(
    readonly status: number,
    detail: RefusalText,
  ) {
    super(detail);
  }
}

/** Which events: see the query of GET /v1/events. */
export interface EventsWanted {
  readonly follow: boolean;
  readonly since?: string;
  readonly vm?: string;
  readonly level?: string;
}

/** One block of the stream of events. */
interface StreamMessage {
  /** Where to go on from. */
  readonly id: string | null;
  readonly event: DaemonEvent | null;
  /** What is missing, or why more comes than was asked for. */
  readonly notice: string | null;
}

interface ClientOptions {
  /** How long a daemon may take for an answer (default 60 s). */
  readonly replyTimeoutMs?: number;
  /** How long requests wait for a daemon that is started again (default 20 s). */
  readonly restartMs?: number;
  /** Hears of a request that waits for the daemon, after a second; the message says why. False ends the wait. */
  readonly onAway?: (message: string) => Promise<boolean>;
}

export class ControlClient {
  readonly #replyTimeoutMs: number;
  readonly #restartMs: number;
  readonly #onAway: (message: string) => Promise<boolean>;
  #places = AT_A_TIME;
  readonly #waiting: (() => void)[] = [];

  constructor(
    readonly socketPath: string,
    {
      replyTimeoutMs = REPLY_TIMEOUT_MS,
      restartMs = RESTART_MS,
      onAway = () => Promise.resolve(true),
    }: ClientOptions = {},
  ) {
    this.#replyTimeoutMs = replyTimeoutMs;
    this.#restartMs = restartMs;
    this.#onAway = onAway;
  }

  async list(): Promise<VmView[]> {
    return (await this.#call('GET', '/v1/vms')) as VmView[];
  }

  async show(vm: string): Promise<VmView> {
    return (await this.#call('GET', vmPath(vm))) as VmView;
  }

  async setTarget(vm: string, target: TargetRequest): Promise<VmView> {
    return (await this.#call('PATCH', vmPath(vm), target)) as VmView;
  }

  /** The VM with the target that it would have. Nothing is changed. */
  async tryTarget(vm: string, target: TargetRequest): Promise<VmView> {
    return (await this.#call('PATCH', `${vmPath(vm)}?dry-run=true`, target)) as VmView;
  }

  async setLimits(vm: string, limits: LimitRequest): Promise<VmView> {
    return (await this.#call('PATCH', vmPath(vm), { limits })) as VmView;
  }

  async setStatsInterval(vm: string, statsIntervalSeconds: number): Promise<VmView> {
    return (await this.#call('PATCH', vmPath(vm), { statsIntervalSeconds })) as VmView;
  }

  /** The daemon itself. One that is too old to say more says its version. */
  async daemon(): Promise<DaemonView | Pick<DaemonView, 'version'>> {
    try {
      return (await this.#call('GET', '/v1/daemon')) as DaemonView;
    } catch (error) {
      if (!(error instanceof ControlError) || error.status !== 404) throw error;
      return (await this.#call('GET', '/healthz')) as Pick<DaemonView, 'version'>;
    }
  }

  async changeDaemon(change: DaemonChange): Promise<DaemonView> {
    return (await this.#call('PATCH', '/v1/daemon', change)) as DaemonView;
  }

  /** `refresh` asks the guest for fresh ones and waits for them. */
  async stats(vm: string, refresh: boolean): Promise<VmStats> {
    return (await this.#call('GET', `${vmPath(vm)}/stats${refresh ? '?refresh=true' : ''}`)) as VmStats;
  }

  async inhibit(vm: string, reason: string | undefined): Promise<VmView> {
    return (await this.#call('PUT', `${vmPath(vm)}/inhibit`, { reason })) as VmView;
  }

  async allow(vm: string): Promise<VmView> {
    return (await this.#call('DELETE', `${vmPath(vm)}/inhibit`)) as VmView;
  }

  /** Has the daemon read its configuration file again; `dryRun`: has it say what would change. */
  async reload(dryRun = false): Promise<ReloadReport> {
    return (await this.#call('POST', `/v1/reload${dryRun ? '?dry-run=true' : ''}`)) as ReloadReport;
  }

  /** The orders that hold. A daemon of an earlier build refuses this. */
  async orders(): Promise<VmOrders[]> {
    return (await this.#call('GET', '/v1/orders')) as VmOrders[];
  }

  /** Returns the orders that were taken back. */
  async takeBackOrders(vm: string): Promise<VmOrders> {
    return (await this.#call('DELETE', `/v1/orders/${encodeURIComponent(vm)}`)) as VmOrders;
  }

  async changeAdopted(change: AdoptChange): Promise<AdoptedSocket> {
    return (await this.#call('PATCH', '/v1/adopted', change)) as AdoptedSocket;
  }

  async adopted(): Promise<AdoptedSocket[]> {
    return (await this.#call('GET', '/v1/adopted')) as AdoptedSocket[];
  }

  async policy(): Promise<PolicyState> {
    return (await this.#call('GET', '/v1/policy')) as PolicyState;
  }

  /** The actions that mode auto would take now. */
  async policyAdvice(): Promise<PolicyAdvice> {
    return (await this.#call('GET', '/v1/policy/advice')) as PolicyAdvice;
  }

  async changePolicy(change: PolicyChange): Promise<PolicyState> {
    return (await this.#call('PATCH', '/v1/policy', change)) as PolicyState;
  }

  /** All that the daemon remembers, oldest first. */
  async events(): Promise<DaemonEvent[]> {
    const all: DaemonEvent[] = [];
    for await (const { event } of this.stream({ since: '0', follow: false }))
      if (event !== null) all.push(event);
    return all;
  }

  /**
   * What the daemon remembers since `since`, oldest first; with `follow` also what comes, until the connection ends. A
   * message without an event says from where to go on, or has a notice of the daemon.
   */
  async *stream(wanted: EventsWanted): AsyncGenerator<StreamMessage> {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(wanted)) query.set(name, String(value));
    const open = (): Promise<IncomingMessage> => this.#send('GET', `/v1/events?${query.toString()}`);
    // A follower has its own way to wait, which tells its user.
    const response = await (wanted.follow ? open() : this.#overRestart(open));
    if (response.statusCode !== 200) throw this.#refusal(response, await this.#text(response));
    // A stream may be silent for as long as nothing happens.
    response.setTimeout(0);
    try {
      let rest = '';
      for await (const chunk of response.setEncoding('utf8') as AsyncIterable<string>) {
        const blocks = (rest + chunk).split('\n\n');
        rest = blocks.pop() ?? '';
        yield* blocks.map(decodeBlock);
      }
    } catch (error) {
      throw this.#unreachable(error);
    }
  }

  /** Each request says a state and not a step, so that one may be sent again when a daemon ended without an answer. */
  async #call(method: string, path: string, body?: unknown): Promise<unknown> {
    const [response, text] = await this.#inTurn(() =>
      this.#overRestart(async () => {
        const begun = await this.#send(method, path, body);
        return [begun, await this.#text(begun)];
      }),
    );
    if (response.statusCode !== 200) throw this.#refusal(response, text);
    return this.#parse(text);
  }

  /** The result of `work`, which begins when there is a place for it. */
  async #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#places > 0) this.#places--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#places++;
      else next();
    }
  }

  /** The result of `attempt`, which is made again while the next daemon may be on its way. Throws the last error. */
  async #overRestart<Result>(attempt: () => Promise<Result>): Promise<Result> {
    const begun = performance.now();
    let told = false;
    for (let waitMs = RETRY_MS; ; waitMs = Math.min(2 * waitMs, RETRY_MS_MAX)) {
      try {
        return await attempt();
      } catch (error) {
        const awayMs = performance.now() - begun;
        if (!(error instanceof UnreachableError && error.mayComeBack) || awayMs >= this.#restartMs)
          throw error;
        if (!told && awayMs >= AWAY_MS) {
          told = true;
          if (!(await this.#onAway(error.message))) throw error;
        }
      }
      await sleep(waitMs);
    }
  }

  #send(method: string, path: string, body?: unknown): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const request = httpRequest(
        {
          // An agent would look for an IP address in the host's name, at a cost of 13 ms.
          createConnection: () => connect({ path: this.socketPath }),
          method,
          path,
          ...(body !== undefined && { headers: { 'content-type': 'application/json' } }),
        },
        resolve,
      );
      request.setTimeout(this.#replyTimeoutMs, () => {
        request.destroy(new UnreachableError(this.#says('does not answer', 'is balloond stopped or stuck?')));
      });
      request.on('error', (error) => reject(this.#unreachable(error)));
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** By events rather than by iteration, which loads more of the stream library: 8 ms. */
  #text(response: IncomingMessage): Promise<string> {
    return new Promise((resolve, reject) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve(text));
      response.on('error', (error) => reject(this.#unreachable(error)));
    });
  }

  #parse(text: string): unknown {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      throw new UnreachableError(this.#says('is not the control socket of balloond', 'give --control PATH'));
    }
  }

  #refusal(response: IncomingMessage, text: string): Error {
    const { detail } = (this.#parse(text) ?? {}) as Partial<ProblemDocument>;
    return new ControlError(response.statusCode ?? 0, passedOn(detail ?? text.trim()));
  }

  #unreachable(error: unknown): Error {
    if (error instanceof UnreachableError) return error;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    switch (code) {
      case 'ENOENT':
        return new UnreachableError(this.#says('does not exist', START), false, code);
      // A daemon that was killed, or handed its VMs over, leaves its socket.
      case 'ECONNREFUSED':
        if (!statSync(this.socketPath, { throwIfNoEntry: false })?.isSocket()) {
          return new UnreachableError(this.#says('is no socket', START));
        }
        return new UnreachableError(
          this.#says('has no daemon behind it', `look at systemctl status balloond, ${START}`),
          true,
          code,
        );
      case 'EACCES':
        return new UnreachableError(
          this.#says('is not yours to open', joinStep(groupOf(this.socketPath))),
          false,
          code,
        );
      case 'ECONNRESET':
      case 'EPIPE':
        return new UnreachableError(
          this.#says(
            'was closed by the daemon',
            'try again; the log of the daemon says daemon-stopping, daemon-ended or control-busy',
          ),
          true,
        );
      default:
        return new UnreachableError(this.#says(`cannot be used (${code})`, 'is balloond running there?'));
    }
  }

  #says(what: string, step: NextStep): RefusalText {
    return refusal(`control socket ${this.socketPath} ${what}`, step);
  }
}

/** The name of the group that owns the socket, its number where it has no name; null: it may not be looked at. */
export function groupOf(socketPath: string): string | null {
  try {
    const { gid } = statSync(socketPath);
    const lines = readFileSync('/etc/group', 'utf8').split('\n');
    const line = lines.find((one) => one.split(':')[2] === String(gid));
    return line?.split(':')[0] ?? String(gid);
  } catch {
    return null;
  }
}

function joinStep(group: string | null): NextStep {
  if (group === null) return 'run as root, since the folder of the socket may not be looked into';
  return group === 'root' ? 'run as root' : `run as root or join the group ${group} and log in again`;
}

function decodeBlock(block: string): StreamMessage {
  const lines = block.split('\n');
  const field = (prefix: string): string | null =>
    lines.find((line) => line.startsWith(prefix))?.slice(prefix.length) ?? null;
  const data = field('data: ');
  return {
    id: field('id: '),
    event: data === null ? null : (JSON.parse(data) as DaemonEvent),
    notice: field(': '),
  };
}

function vmPath(vm: string): string {
  // Half of a surrogate pair has no UTF-8: the daemon has U+FFFD in its place, as this has.
  return `/v1/vms/${encodeURIComponent(Buffer.from(vm).toString())}`;
}
