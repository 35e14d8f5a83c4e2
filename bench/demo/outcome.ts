/** Whether the demo showed what it is there to show: the host got its memory back, and gave it again when needed. */
export interface Outcome {
  /** What the host has allocated to the VM: once the guest had used its memory, */
  readonly fullBytes: number;
  /** while the balloon held its GiB, */
  readonly takenBytes: number;
  /** and when the guest had used its memory again. */
  readonly againBytes: number;
}

const MIB = 2 ** 20;
const LEAST_MOVE_BYTES = 0.9 * 2 ** 30;

/** Null when it did, else what went wrong. */
export function failing({ fullBytes, takenBytes, againBytes }: Outcome): string | null {
  const least = mib(LEAST_MOVE_BYTES);
  if (fullBytes - takenBytes < LEAST_MOVE_BYTES) {
    return `host memory fell by ${mib(fullBytes - takenBytes)} MiB only, less than ${least} MiB`;
  }
  if (againBytes - takenBytes < LEAST_MOVE_BYTES) {
    return `host memory came back by ${mib(againBytes - takenBytes)} MiB only, less than ${least} MiB`;
  }
  return null;
}

export function sentence({ fullBytes, takenBytes, againBytes }: Outcome): string {
  return (
    `Host memory of the VM went from ${mib(fullBytes)} to ${mib(takenBytes)} MiB, ` +
    `and back to ${mib(againBytes)} MiB when the guest used it again.`
  );
}

function mib(bytes: number): number {
  return Math.round(bytes / MIB);
}
