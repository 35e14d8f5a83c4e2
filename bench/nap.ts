/** Sleeping without the event loop, for a process that has nothing else to do. */
const NAP_MS = 0.02;
const never = new Int32Array(new SharedArrayBuffer(4));

/** Leaves the core to others; with the kernel's timer slack it lasts some 80 µs. */
export function nap(): void {
  Atomics.wait(never, 0, 0, NAP_MS);
}
