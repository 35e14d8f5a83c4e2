import { notify } from './notify.js';

/** Of the time after which the service manager would give up: room for two messages that come late. */
const PART = 3;

/**
 * Tells the service manager (WATCHDOG_USEC) that the daemon is alive, from the event loop, as long as `moves` says that
 * its threads are.
 */
export function startWatchdog(moves: (withinMs: number) => boolean, environment = process.env): void {
  const { WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = environment;
  if (usec === undefined || (pid !== undefined && pid !== String(process.pid))) return;
  const limitMs = Number(usec) / 1000;
  setInterval(() => {
    if (moves(limitMs)) notify({ WATCHDOG: 1 });
  }, limitMs / PART);
}
