import { formatSize } from '../../protocol/control/size.js';
import type { SessionState } from '../vhost-user/session.js';

/** How long nothing may move before that is worth a sentence. */
const PATIENCE_MS = 30_000;

export interface Symptoms {
  /** Something that was found wrong and stands until the driver starts anew. */
  problem: string | null;
  state: SessionState;
  /** Milliseconds since the epoch: now, when the VMM connected, when target, balloon or driver last moved. */
  now: number;
  connectedAt: number;
  movedAt: number;
  targetBytes: number;
  actualBytes: number;
  guestFreeBytes: number | null;
  /** A file that the VMM has open and that pins guest memory. */
  pinnedBy: string | null;
  /** The driver should have used a ring by now, kicked, and no ring ever moved. */
  silentRings: boolean;
}

/** What is wrong with a VM's balloon and what to do, in a sentence; null when nothing is. */
export function verdict(symptoms: Symptoms): string | null {
  const { problem, state, now, targetBytes, actualBytes } = symptoms;
  if (problem !== null) return problem;
  if (state === 'connected' && now - symptoms.connectedAt > PATIENCE_MS) {
    return 'no guest driver has started yet: check that the guest has virtio_balloon (lsmod) and has booted';
  }
  if (symptoms.pinnedBy !== null) {
    return `the VMM has ${symptoms.pinnedBy} open, which pins guest memory: nothing is discarded until the device is detached; set no balloon target for this VM, or give it an emulated device`;
  }
  if (state !== 'running') return null;
  if (symptoms.silentRings && now - symptoms.movedAt > PATIENCE_MS) {
    return 'the guest kicks but its rings never move here: guest memory is probably not shared, add share=on to the memory backend and restart the VM';
  }
  if (actualBytes !== targetBytes && now - symptoms.movedAt > PATIENCE_MS) {
    const free =
      symptoms.guestFreeBytes === null ? '' : ` (the guest has ${formatSize(symptoms.guestFreeBytes)} free)`;
    return actualBytes < targetBytes
      ? `the guest stopped at ${formatSize(actualBytes)} of ${formatSize(targetBytes)}${free}: it cannot give more, set a smaller balloon`
      : `the guest does not take back its memory, the balloon stays at ${formatSize(actualBytes)}: check the guest's kernel log`;
  }
  return null;
}
