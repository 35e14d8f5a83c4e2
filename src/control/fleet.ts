/** What the control server needs of the daemon; main implements it. The server holds no state of VMs. */
import { RefusingError } from '../../protocol/control/refusal.js';
import type { LiveTick } from '../../protocol/control/live.js';
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

export interface Fleet {
  list(): VmView[];
  /** The whole of a VM, which costs more than to know that there is one. */
  find(name: string): VmView | undefined;
  /** The names of all VMs. */
  names(): readonly string[];
  /** Bytes, whole and not negative. Rejects with RefusedError. */
  setTarget(name: string, target: TargetRequest): Promise<VmView>;
  /** The VM with the target and the orders that it would have. Throws RefusedError. */
  tryTarget(name: string, target: TargetRequest): VmView;
  /** Resolves once the kernel took them. Rejects with RefusedError. */
  setLimits(name: string, limits: LimitRequest): Promise<VmView>;
  /** How often the guest is asked for statistics, until the daemon restarts or its configuration says otherwise. 0: never. */
  setStatsInterval(name: string, seconds: number): Promise<VmView>;
  /** Resolves once the guest sent statistics younger than the call. Rejects with RefusedError. */
  refreshStats(name: string, timeoutMs: number): Promise<VmView>;
  /** What GET /metrics answers, in Prometheus' text format and in UTF-8. */
  metrics(): Promise<Uint8Array>;
  /** What the page shows. */
  live(): LiveTick;
  /** `null` resumes discarding; else resolves when none is under way any more. Rejects with RefusedError. */
  setInhibited(name: string, reason: string | null): Promise<VmView>;
  /** The orders that hold, by the names of VMs; also of VMs that are not connected. */
  orders(): VmOrders[];
  /** Those for one name, which may be none. */
  ordersOf(name: string): VmOrders;
  /** Takes all orders of an operator for that name back, and returns them. Rejects with RefusedError. */
  takeBackOrders(name: string): Promise<VmOrders>;
  /** The QMP sockets whose VMs are adopted, or are to be. */
  adopted(): AdoptedSocket[];
  /** Adopts the VM of a QMP socket, or releases it. Rejects with RefusedError. */
  changeAdopted(change: AdoptChange): Promise<AdoptedSocket>;
  policy(): PolicyState;
  /** The actions that mode auto would take now. None is taken. */
  advice(): PolicyAdvice;
  /** Rejects with RefusedError. */
  changePolicy(change: PolicyChange): Promise<PolicyState>;
}

/** The daemon itself, as the control API shows and changes it. */
export interface DaemonControl {
  view(): DaemonView;
  change(change: DaemonChange): DaemonView;
  /** Reads the configuration again and says what changed; `dryRun`: what would change. Throws RefusedError. */
  reload(dryRun: boolean): ReloadReport;
}

export interface EventSource {
  /** Numbers of another epoch say nothing of events of this one. */
  readonly epoch: string;
  /** The `seq` of the newest event of this epoch; 0: there was none. */
  readonly newest: number;
  /** What is remembered with a `seq` above this one, oldest first. */
  recent(sinceSeq: number): DaemonEvent[];
  /** Calls back at each new event, in order; returns the end of the subscription. */
  subscribe(listener: (event: DaemonEvent) => void): () => void;
}

/** The VM's present state does not allow it (HTTP 409). The message is a sentence that says what to do. */
export class RefusedError extends RefusingError {
  override readonly name: string = 'RefusedError';
}
