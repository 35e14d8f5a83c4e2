/**
 * The codes of verdicts. A code is stable: doctor, alerts and scripts go by it, and docs/operating.md explains each. The
 * sentence of a verdict may change with any version.
 */
export const DIAGNOSIS_CODES = [
  'no-driver',
  'rings-silent',
  'private-memory',
  'too-few-queues',
  'memory-pinned',
  'throttled',
  'target-not-answered',
  'actual-not-written',
  'not-deflating',
  'target-too-large',
  'inflate-stopped',
  'out-of-puff',
  'no-statistics',
  'pages-refilled',
  'pages-pinned',
  'pages-used',
  'ring-stopped',
  'discards-failed',
  'memory-cut',
  'memory-unavailable',
  'limit-too-low',
  'limits-denied',
  'limits-read-only',
  'limits-refused',
  'cgroup-gone',
  'no-cgroup',
  'earlier-build',
] as const;
export type DiagnosisCode = (typeof DIAGNOSIS_CODES)[number];
