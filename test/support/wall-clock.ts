import type { Test } from 'tap';

const HOUR_MS = 3_600_000;

/** Sets the wall time of this process by so many hours, until the test ends. The clock of a whole host: test/e2e/host.test.ts. */
export function wallClock(t: Test): (hours: number) => void {
  const { now } = Date;
  let stepMs = 0;
  Date.now = () => now() + stepMs;
  t.teardown(() => (Date.now = now));
  return (hours) => (stepMs = hours * HOUR_MS);
}
