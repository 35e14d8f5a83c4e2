import type { Registry } from 'prom-client';
import { openFileCount } from '../host/pinned.js';
import { Family } from './exposition.js';

/** Looking at the lag of the event loop more often than this would be most of what an idle daemon does. */
const LAG_LOOK_MS = 100;

/**
 * Of the library's: gauges that are called like counters, which promtool refuses; what lists all handles or file
 * descriptors for a number; and what says nothing of a daemon like this.
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
  'process_open_fds',
];

let registry: Promise<Registry> | null = null;

/** Of the daemon's own process: CPU, memory, file descriptors, garbage collection, and how late its event loop is. */
export async function processMetrics(): Promise<string> {
  // Loaded, and the event loop watched, when somebody asks for the first time: guests wait while a daemon starts.
  registry ??= open();
  const text = await (await registry).metrics();
  const openFds = openFileCount(process.pid);
  if (openFds === null) return text;
  const fds = new Family('process_open_fds', 'gauge', 'Number of open file descriptors.');
  fds.add('', openFds);
  return `${fds.toString()}${text}`;
}

async function open(): Promise<Registry> {
  const { collectDefaultMetrics, Registry: Fresh } = await import('prom-client');
  const fresh = new Fresh();
  collectDefaultMetrics({ register: fresh, eventLoopMonitoringPrecision: LAG_LOOK_MS });
  for (const name of LEFT_OUT) fresh.removeSingleMetric(name);
  return fresh;
}
