/**
 * The codes of verdicts. A code is stable: doctor, alerts and scripts go by it, and docs/operating.md explains each. The
 * sentence of a verdict may change with any version.
 */
export const DIAGNOSIS_CODES = [
  'no-driver',
  'rings-silent',
  'private-memory',
  'too-few-queues',
  'memory-refused',
  'memory-not-discardable',
  'memory-pinned',
  'throttled',
  'stopped',
  'target-not-answered',
  'actual-not-written',
  'not-deflating',
  'target-too-large',
  'inflate-stopped',
  'out-of-puff',
  'took-back',
  'no-statistics',
  'pages-refilled',
  'pages-pinned',
  'pages-used',
  'ring-stopped',
  'discards-failed',
  'memory-cut',
  'memory-unavailable',
  'huge-pages-short',
  'huge-pages-kept',
  'limit-too-low',
  'limits-denied',
  'limits-read-only',
  'limits-refused',
  'cgroup-gone',
  'no-cgroup',
  'earlier-build',
] as const;
export type DiagnosisCode = (typeof DIAGNOSIS_CODES)[number];

/** The words of the daemon's verdict and of doctor: the probe of the second one ends with EBUSY (-16), and no module changes that. */
export const OWN_BALLOON = {
  text: "QEMU's own balloon has free page reporting, too, and Linux serves one such device",
  remedy: "start QEMU without its own virtio-balloon (libvirt: <memballoon model='none'/>)",
} as const;
