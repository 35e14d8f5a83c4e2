import type { PeerAway, VmmError } from '../../protocol/adopted.js';
import type { Emit } from '../ops/event-log.js';
import { isStopped } from '../host/process-id.js';
import { sentence, type Diagnosis } from './diagnosis.js';

interface TroubledDevice {
  /** The program that answers, in messages. */
  readonly peer: string;
  /** The process of the VMM. */
  readonly pid: number;
  readonly emit: Emit;
  /** The VMM answers again after it did not. */
  readonly goesOn: () => void;
}

/** What is wrong with the VMM of an adopted VM, or with the way to it, for as long as that is so. */
export class AdoptedTrouble {
  readonly #device: TroubledDevice;
  #away: Diagnosis | null = null;
  /** It refused a command, or does not answer; null: it did as it was told. */
  #failure: Diagnosis | null = null;

  constructor(device: TroubledDevice) {
    this.#device = device;
  }

  get diagnosis(): Diagnosis | null {
    return this.#away ?? this.#failure;
  }

  /** The VMM did as it was told. */
  answered(): void {
    const before = this.#failure;
    this.#failure = null;
    if (before?.code === 'qmp-unanswered') this.#device.goesOn();
  }

  /** Once for each reason. Where the peer is away, that is the reason of each failure, and is told once for all VMs. */
  failed(error: VmmError): void {
    if (this.#away !== null) return;
    const { emit } = this.#device;
    const before = this.#failure;
    const trouble = troubleOf(error, this.#device);
    this.#failure = trouble;
    if (before !== null && sentence(before) === sentence(trouble)) return;
    emit('qmp-failed', sentence(trouble), { code: trouble.code });
  }

  /** The peer is away; null: it is back. */
  peerAway(says: PeerAway | null): void {
    const wasAway = this.#away !== null;
    this.#away = says === null ? null : awayOf(says, this.#device.peer);
    if (says !== null || !wasAway) return;
    this.#failure = null;
    this.#device.goesOn();
  }
}

function awayOf({ why, step }: PeerAway, peer: string): Diagnosis {
  return {
    code: 'libvirt-away',
    text: `${peer} is away, and the balloon stays as it is (${why})`,
    remedy: step,
  };
}

/** What is wrong with a VM whose VMM refused a command, or does not answer. */
function troubleOf({ message, errorClass }: VmmError, { peer, pid }: TroubledDevice): Diagnosis {
  if (errorClass === null) {
    if (isStopped(pid))
      return {
        code: 'qmp-unanswered',
        text: `the process of the VM (pid ${pid}) is stopped by a signal or a debugger, and the balloon stays as it is`,
        remedy: `let it go on (kill -CONT ${pid}, or leave the debugger); the daemon asks again every 10 s`,
      };
    return {
      code: 'qmp-unanswered',
      text: `the daemon cannot move the balloon, since ${message}`,
      remedy: 'look whether QEMU hangs or writes a snapshot; the daemon asks again every 10 s',
    };
  }
  return {
    code: 'qmp-refused',
    text: `${peer} refused a command of the daemon: ${message}`,
    remedy: "see QEMU's log, and set the target again",
  };
}
