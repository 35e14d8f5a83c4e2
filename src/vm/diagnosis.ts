import { formatMost, formatSize } from '../../protocol/control/size.js';
import { OBSTACLES, type DiagnosisCode, type Obstacle } from '../../protocol/control/diagnosis.js';
import { BalloonFeature } from '../../protocol/virtio/balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { passedOnStep, refusal, type NextStep, type RefusalText } from '../../protocol/control/refusal.js';
import type { VmDiagnosis } from '../../protocol/control/schema.js';
import { vmCommand } from '../../protocol/control/vm-command.js';
import type { SessionState } from '../vhost-user/session.js';
import type { KINDS } from './kinds.js';

/** One thing that is wrong with a VM: a stable code, a sentence without its end, and the next step. */
export type Diagnosis = Omit<VmDiagnosis, 'remedy'> & { readonly remedy: NextStep };

/** The verdict in words: what is wrong, and after a colon what to do. */
export function sentence({ text, remedy }: Diagnosis): RefusalText {
  return refusal(text, remedy);
}

/** The diagnosis of a sentence that says after its first colon what to do; `otherwise` is the step where it has none. */
export function inTwo(code: DiagnosisCode, said: string, otherwise: NextStep = 'see balloond(8)'): Diagnosis {
  const at = said.indexOf(': ');
  if (at < 0) return { code, text: said, remedy: otherwise };
  return { code, text: said.slice(0, at), remedy: passedOnStep(said.slice(at + 2)) };
}

/** The policy set the target that the guest cannot follow: no operator is to set another one. */
export function underPolicy(diagnosis: Diagnosis, name: string): Diagnosis {
  if (!OF_TARGET.has(diagnosis.code)) return diagnosis;
  return {
    ...diagnosis,
    remedy: `see ${vmCommand('balloonctl policy explain', name)} for why the policy asked for that, and raise the min of this VM in [policy] if its guest needs the memory`,
  };
}
const OF_TARGET: ReadonlySet<DiagnosisCode> = new Set([
  'target-too-large',
  'inflate-stopped',
  'out-of-puff',
  'took-back',
]);

/** How long a VM may take for a first sign of life, and how long a balloon may get no nearer to its target. */
const PATIENCE_MS = 30_000;
const STUCK_MS = 10_000;
/** A driver that starts anew beside a running device gets nearer to its target within that time: QEMU tells of it once a second. */
const AWAY_MS = 2000;
/** Memory of the guest that cannot go back to the host, below this part of it, is not worth a sentence. */
const SMALL_PART = 1 / 50;
/** So many answers in a row may be missing. */
const STATS_MISSED = 3;
/** With less than this of its memory free, a guest can give none. */
const LEAST_FREE_PART = 1 / 32;

/** Read as far as a diagnosis needs them. */
export interface Symptoms {
  /** Something that was found wrong and stands until the driver starts anew. */
  readonly problem: Diagnosis | null;
  readonly state: SessionState;
  /** The guest's driver for the device, by the name of its module. */
  readonly driver: (typeof KINDS)[keyof typeof KINDS]['driver'];
  /** What keeps the driver from starting, as far as the VMM's command line tells. */
  readonly obstacle: () => Obstacle | null;
  /** Milliseconds since the VMM connected, and since the target moved, the balloon got nearer to it, or the driver started. */
  readonly connectedMs: number;
  readonly stillMs: number;
  readonly ramBytes: number;
  /** The memory that the guest says it has; null: it has not said. */
  readonly toldBytes: number | null;
  /** The memory without which the guest cannot live. */
  readonly leastBytes: number;
  /** Of its memory, that which can go back to the host; null: it is not known how much memory the guest has. */
  readonly discardableBytes: number | null;
  readonly targetBytes: number;
  readonly actualBytes: number;
  /** The driver has not said yet how much that is. */
  readonly actualUnknown: boolean;
  /** What is in the balloon by the pages it was told of. */
  readonly heldBytes: number;
  /** The memory that the guest took back by itself since it was last told of its target. */
  readonly tookBackBytes: number;
  /** Milliseconds since the balloon, which was at rest at its target, is away from it; 0: it is not. */
  readonly awayMs: number;
  /** The memory that went into the balloon beyond its target since then. */
  readonly overshotBytes: number;
  /** How an operator leaves the VM to another program that moves its balloon, too; null: no other program can. */
  readonly toLeave: NextStep | null;
  /** The driver takes memory out of the balloon by itself when its guest runs out of memory. */
  readonly deflatesOnOom: boolean;
  readonly guestFreeBytes: number | null;
  /** The driver gave or took back pages since the target was set. */
  readonly answered: boolean;
  /** Milliseconds since statistics came, or since the driver that owes them started; null: none are asked for. */
  readonly statsAgeMs: number | null;
  readonly statsIntervalMs: number;
  /** It waits for its turns on the event loop, and has done so for a while. */
  readonly throttled: boolean;
  /** A file that the VMM has open and that pins guest memory. */
  readonly pinnedBy: string | null;
  /** What was discarded and is there all the same. */
  readonly absence: Diagnosis | null;
  /** Queues that the driver uses and that are not served, because it set up fewer of them than it acked. */
  readonly unknownQueues: readonly number[];
  /** The driver should have used a ring by now, kicked, and no ring ever moved. */
  readonly silentRings: boolean;
}

const SILENT_RINGS: Diagnosis = {
  code: 'rings-silent',
  text: 'the guest kicks but its rings never move here, because guest memory is probably not shared',
  remedy: 'add share=on to the memory backend and restart the VM',
};

/** What is wrong with a device and what to do; null when nothing is. */
export function diagnose(symptoms: Symptoms): Diagnosis | null {
  const { problem, state, pinnedBy } = symptoms;
  if (problem !== null) return problem;
  if (state === 'connected' && symptoms.connectedMs > PATIENCE_MS) return noDriver(symptoms);
  if (state === 'running' && symptoms.stillMs > PATIENCE_MS) {
    // Before the rings, which do not move then.
    if (symptoms.unknownQueues.length > 0) return unservedQueues(symptoms);
    if (symptoms.silentRings) return SILENT_RINGS;
  }
  if (pinnedBy !== null) {
    return {
      code: 'memory-pinned',
      text: `the VMM has ${pinnedBy} open, which pins guest memory`,
      remedy:
        'nothing is discarded until the device is detached; set no balloon target for this VM, or give it an emulated device',
    };
  }
  if (state === 'stopped') return stopped(symptoms);
  if (state !== 'running') return null;
  if (symptoms.throttled) {
    return {
      code: 'throttled',
      text: 'the guest or the VMM keeps the daemon so busy that other VMs go first',
      remedy:
        'look in the guest for the program or driver that kicks, reports or reads its configuration all the time, and restart the VM if the load does not end',
    };
  }
  const { absence } = symptoms;
  if (absence?.code === 'pages-used') return absence;
  const whyStuck = symptoms.stillMs > STUCK_MS ? stuck(symptoms) : null;
  return whyStuck ?? takenAway(symptoms) ?? absence ?? deadStatistics(symptoms) ?? notDiscardable(symptoms);
}

function unservedQueues({ unknownQueues, driver }: Symptoms): Diagnosis {
  const queues = unknownQueues.length === 1 ? 'queue' : 'queues';
  return {
    code: 'queues-missing',
    text: `the guest driver acked features and did not set up all of their queues, so nobody can tell the purpose of ${queues} ${unknownQueues.join(', ')}, and no statistics and no reports of free pages are read`,
    remedy: `load another version of ${driver} in the guest, and report this one to its authors`,
  };
}

function noDriver({ driver, obstacle: read }: Symptoms): Diagnosis {
  const which = driver === 'virtio_balloon' ? '' : ' of the page cache balloon';
  const [code, text] = ['no-driver', `no guest driver${which} has started yet`] as const;
  const obstacle = read();
  if (obstacle === null) {
    return {
      code,
      text,
      remedy: `check that the guest has booted and has ${driver} (lsmod), and look in its kernel log (dmesg) for an error of the driver`,
    };
  }
  return { code, text: `${text}; ${OBSTACLES[obstacle].text}`, remedy: OBSTACLES[obstacle].remedy };
}

function stopped({ actualBytes, actualUnknown, targetBytes }: Symptoms): Diagnosis | null {
  if (actualBytes === 0 && targetBytes === 0) return null;
  return {
    code: 'stopped',
    text: `the VM is paused, its guest sleeps, or its balloon driver stopped; the balloon held ${actualUnknown ? 'an unknown amount' : formatSize(actualBytes)}, and its target of ${formatSize(targetBytes)} waits`,
    remedy:
      'run virsh resume or cont for a VM that is paused, virsh dompmwakeup or system_wakeup for a guest that sleeps, or load the balloon driver in the guest',
  };
}

function notDiscardable({ discardableBytes, ramBytes, toldBytes }: Symptoms): Diagnosis | null {
  // Memory that was plugged in and is not shared is known by the guest's word alone, by which it gets nothing more.
  const bytes = Math.max(ramBytes, toldBytes ?? 0);
  if (discardableBytes === null || bytes - discardableBytes <= bytes * SMALL_PART) return null;
  const [part, ram] = [formatSize(discardableBytes), formatSize(bytes)];
  return {
    code: 'memory-not-discardable',
    text: `only ${part} of the ${ram} of the guest can go back to the host, since the rest is private to the VMM or in a file on disk`,
    remedy: 'give the VM memory-backend-ram,share=on for all of its memory',
  };
}

/** Why the balloon stays where it is, which is not where it should be. */
function stuck(symptoms: Symptoms): Diagnosis | null {
  const { targetBytes, actualBytes, actualUnknown } = symptoms;
  if (!actualUnknown && actualBytes === targetBytes) return null;
  const { heldBytes, tookBackBytes } = symptoms;
  const actual = formatSize(actualBytes);
  if (!symptoms.answered && !isFull(symptoms)) {
    return {
      code: 'target-not-answered',
      text: `the guest driver never answered the target of ${formatSize(targetBytes)}`,
      remedy: 'check that the VM is not paused and the guest not hung, then reload its balloon driver',
    };
  }
  if (actualUnknown || heldBytes === targetBytes) {
    const holds = actualUnknown ? 'moves pages in and out of' : `holds ${formatSize(heldBytes)} in`;
    return {
      code: 'actual-not-written',
      text: `the guest ${holds} its balloon but never acks that (actual stays ${actualUnknown ? 'unknown' : actual})`,
      remedy: 'update its balloon driver',
    };
  }
  if (isMovedByOther(symptoms)) return movedByOther(symptoms);
  if (actualBytes > targetBytes) {
    return {
      code: 'not-deflating',
      text: `the guest does not take back its memory; the balloon stays at ${actual}`,
      remedy: "check the guest's kernel log",
    };
  }
  if (tookBackBytes > 0) {
    return {
      code: 'took-back',
      text: `the guest ran out of memory and took ${formatSize(tookBackBytes)} out of its balloon, which holds ${actual} of ${formatSize(targetBytes)}${symptoms.toLeave !== null ? ', unless another program moved the balloon' : ''}`,
      remedy: `set a balloon of ${formatMost(actualBytes)} at most, or the same target again once the guest has memory to give`,
    };
  }
  return short(symptoms);
}

/** The guest has nothing to give, by statistics that are no older than the target: it has no page to answer with. */
function isFull({
  actualBytes,
  targetBytes,
  guestFreeBytes,
  ramBytes,
  statsAgeMs,
  stillMs,
}: Symptoms): boolean {
  if (actualBytes >= targetBytes || guestFreeBytes === null || statsAgeMs === null) return false;
  return statsAgeMs < stillMs && guestFreeBytes < ramBytes * LEAST_FREE_PART;
}

/** Of a balloon that other programs can move, too. */
type Shared = Symptoms & { readonly toLeave: NextStep };

/**
 * Whether the balloon moved away from its target, which no guest does by itself: no driver inflates beyond its target, and none that
 * may not deflate on OOM deflates below (Linux, drivers/virtio/virtio_balloon.c), except as it is unloaded.
 */
function isMovedByOther(symptoms: Symptoms): symptoms is Shared {
  const { toLeave, deflatesOnOom, overshotBytes, tookBackBytes } = symptoms;
  return toLeave !== null && (overshotBytes > 0 || (tookBackBytes > 0 && !deflatesOnOom));
}

/** No patience is needed with a balloon that was where it should be; a driver that was unloaded would have emptied it. */
function takenAway(symptoms: Symptoms): Diagnosis | null {
  const { awayMs, actualBytes } = symptoms;
  return awayMs > AWAY_MS && actualBytes > 0 && isMovedByOther(symptoms) ? movedByOther(symptoms) : null;
}

/** Null: a driver that was unloaded would have emptied the balloon as well, and would send no more statistics. */
function movedByOther({
  actualBytes,
  targetBytes,
  statsAgeMs,
  statsIntervalMs,
  toLeave,
}: Shared): Diagnosis | null {
  if (actualBytes === 0 && statsAgeMs !== null && statsAgeMs > statsIntervalMs) return null;
  return {
    code: 'moved-by-other',
    text: `another program moved the balloon to ${formatSize(actualBytes)}, away from the target of ${formatSize(targetBytes)}, which no guest does by itself`,
    remedy: `end the program that sets the balloon of this VM, too (virsh setmem, MOM, pvestatd or another balloond), and then set the target again; to leave the VM to that program instead, ${toLeave}`,
  };
}

/** Why the balloon is smaller than it should be. */
function short({ ramBytes, leastBytes, targetBytes, actualBytes, guestFreeBytes }: Symptoms): Diagnosis {
  const actual = formatSize(actualBytes);
  const target = formatSize(targetBytes);
  if (ramBytes - targetBytes < leastBytes) {
    return {
      code: 'target-too-large',
      text: `a target of ${target} would leave the guest ${formatSize(ramBytes - targetBytes)} of ${formatSize(ramBytes)}, too little for any guest to run`,
      remedy: `set a balloon of ${formatMost(Math.max(0, ramBytes - leastBytes))} at most`,
    };
  }
  if (guestFreeBytes !== null && guestFreeBytes >= ramBytes * LEAST_FREE_PART) {
    return {
      code: 'inflate-stopped',
      text: `the guest stopped at ${actual} of ${target} with ${formatSize(guestFreeBytes)} free`,
      remedy: "look for its balloon driver in the guest's kernel log, or set a smaller balloon",
    };
  }
  const free = guestFreeBytes === null ? '' : ` (it has ${formatSize(guestFreeBytes)} free)`;
  return {
    code: 'out-of-puff',
    text: `the guest is out of puff at ${actual} of ${target}${free}`,
    remedy: `set a balloon of ${formatMost(actualBytes)} at most`,
  };
}

function deadStatistics({ statsAgeMs, statsIntervalMs }: Symptoms): Diagnosis | null {
  if (statsAgeMs === null || statsAgeMs <= STATS_MISSED * statsIntervalMs) return null;
  return {
    code: 'no-statistics',
    text: `the guest sent no statistics for ${Math.round(statsAgeMs / 1000)} s, although the daemon asks for them every ${statsIntervalMs / 1000} s`,
    remedy: 'check that the guest is not hung, then reload its balloon driver',
  };
}

/**
 * Whether rings were kicked and none ever moved, though the driver should have used one: it has to move to its target, or
 * has statistics, and primes their queue. Kicks alone say nothing: each kick eventfd starts at 1.
 */
export function ringsSilent(
  rings: readonly { readonly kicks: number; readonly served: number }[],
  features: FeatureBits,
  toMove: boolean,
): boolean {
  if (rings.some(({ served }) => served > 0) || rings.every(({ kicks }) => kicks === 0)) return false;
  return toMove || hasFeature(features, BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ);
}
