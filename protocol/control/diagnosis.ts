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
  'moved-by-other',
  'queues-missing',
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
  'qmp-unanswered',
  'qmp-refused',
  'libvirt-away',
  'earlier-build',
] as const;
export type DiagnosisCode = (typeof DIAGNOSIS_CODES)[number];

/**
 * What keeps a guest's driver from starting, as far as QEMU's command line tells, and the next step, in the words of the daemon's
 * verdict and of doctor. The probe of the driver ends with EBUSY (-16) beside QEMU's own balloon and with ENOSPC (-28) on s390x,
 * and no module changes that.
 */
export const OBSTACLES = {
  'own-balloon': {
    text: "QEMU's own balloon has free page reporting, too, and Linux serves one such device",
    remedy: "start QEMU without its own virtio-balloon (libvirt: <memballoon model='none'/>)",
  },
  s390x: {
    text: "QEMU's generic device has one interrupt vector, and the driver needs more in a guest of s390x",
    remedy: 'take the device out of the VM, because no VMM has one for s390x that balloond can serve',
  },
} as const;
export type Obstacle = keyof typeof OBSTACLES;
