import type { Registry } from 'prom-client';
import { openFileCount } from '../host/pinned.js';
import { Family } from './exposition.js';

const LIBRARY_GONE =
  '# Metrics of the process are missing: the files of the program were removed or replaced. They are back after the next start of the daemon.\n';

/** The library looks at the event loop that often; more often would be most of what an idle daemon does. */
const LAG_LOOK_MS = 1000;

/**
 * Of the library's: gauges that are called like counters, which promtool refuses; what lists all handles or file
 * descriptors for a number; what says nothing of a daemon like this; and lags that have the time between two looks in
 * them.
 */
const LEFT_OUT = [
  'nodejs_active_handles',
  'nodejs_active_handles_total',
  'nodejs_active_requests',
  'nodejs_active_requests_total',
  'nodejs_active_resources',
  'nodejs_active_resources_total',
  'nodejs_heap_space_size_total_bytes',
  'nodejs_heap_space_size_used_bytes',
  'nodejs_heap_space_size_available_bytes',
  'nodejs_eventloop_lag_min_seconds',
  'nodejs_eventloop_lag_max_seconds',
  'nodejs_eventloop_lag_mean_seconds',
  'nodejs_eventloop_lag_stddev_seconds',
  'nodejs_eventloop_lag_p50_seconds',
  'nodejs_eventloop_lag_p90_seconds',
  'nodejs_eventloop_lag_p99_seconds',
  'process_open_fds',
];

let registry: Promise<Registry> | null = null;

/** Loads the library, once VMs are served: later its files may be those of another version, or be gone. */
export async function loadProcessMetrics(): Promise<void> {
  registry ??= open();
  await registry.catch(() => (registry = null));
}

/** Of the daemon's own process: CPU, memory, file descriptors, garbage collection, and how late its event loop is. */
export async function processMetrics(): Promise<Buffer> {
  await loadProcessMetrics();
  const text = registry === null ? LIBRARY_GONE : await (await registry).metrics();
  const busy = new Family(
    'balloond_event_loop_busy_seconds_total',
    'counter',
    'Time in which the event loop had work: at 1 s a second guests wait',
  );
  busy.add('', performance.eventLoopUtilization().active / 1000);
  const fds = new Family('process_open_fds', 'gauge', 'Number of open file descriptors');
  const count = openFileCount(process.pid);
  if (count !== null) fds.add('', count);
  return Buffer.concat([...busy.bytes(), ...fds.bytes(), Buffer.from(text)]);
}

async function open(): Promise<Registry> {
  // It is no ES module: in the bundle it has this one export.
  const { collectDefaultMetrics, Registry: Fresh } = (await import('prom-client')).default;
  const fresh = new Fresh();
  collectDefaultMetrics({ register: fresh, eventLoopMonitoringPrecision: LAG_LOOK_MS });
  for (const name of LEFT_OUT) fresh.removeSingleMetric(name);
  return fresh;
}
