/** Machines that a guest can run on: the lab's own, and those of other architectures, which scripts/foreign-guest makes. */
export interface Machine {
  /** The row of scripts/foreign-guest that has its QEMU and its guest; null: the lab has both. */
  readonly row: string | null;
  /** The suite of Debian that has its kernel, of the lab's own machine; default: that of GUEST_KERNEL, or the lab's. */
  readonly suite?: string;
  /** QEMU's accelerator; default: its own emulation. */
  readonly accel?: string;
  /** QEMU's arguments for processor and board; `acpi` is what a test wants of a PC. */
  readonly board: (acpi: 'on' | 'off') => readonly string[];
  /** Of the kernel's command line. */
  readonly kernelArgs: readonly string[];
}

/** A third of the time to user space under emulation: self-tests, certificates and tables no test needs. */
const SLOW_INITCALLS = [
  'jent_mod_init',
  'crypto_algapi_init',
  'load_system_certificate_list',
  'init_encrypted',
  'bpf_tcp_ca_kfunc_init',
  'bpf_dummy_struct_ops_init',
  'trace_eval_init',
  'cec_init',
  'inet6_init',
];

/** On a busy machine an emulated timer is late, and the kernel's test of its interrupt ends in a panic. */
export const PC_ARGS = ['console=ttyS0', 'no_timer_check', `initcall_blacklist=${SLOW_INITCALLS.join(',')}`];

/**
 * All that QEMU can emulate, but without the promise that string instructions are fast, which it does not keep: Linux then clears
 * a page byte by byte.
 */
const CPU = ['max', ...['la57', 'erms', 'fsrm', 'fzrm', 'fsrs', 'fsrc'].map((name) => `${name}=off`)].join();

const ARM64 = {
  board: () => ['-cpu', 'max,pauth-impdef=on', '-machine', 'virt'],
  kernelArgs: ['console=ttyAMA0'],
};

const PC = {
  board: (acpi: 'on' | 'off') => ['-cpu', CPU, '-machine', `pc,acpi=${acpi}`],
  kernelArgs: PC_ARGS,
};

export const MACHINES = {
  x86: { ...PC, row: null },
  q35: { ...PC, row: null, board: (acpi: 'on' | 'off') => ['-cpu', CPU, '-machine', `q35,acpi=${acpi}`] },
  /** A host for guests under KVM: what kvm-amd needs. */
  'kvm-host': {
    ...PC,
    row: null,
    board: (acpi: 'on' | 'off') => ['-cpu', 'EPYC-v1,+svm,+npt', '-machine', `pc,acpi=${acpi}`],
  },
  /** A guest under KVM, on such a host. */
  kvm: {
    ...PC,
    row: null,
    accel: 'kvm',
    board: (acpi: 'on' | 'off') => ['-cpu', 'host', '-machine', `pc,acpi=${acpi}`],
  },
  bookworm: { ...PC, row: null, suite: 'bookworm' },
  backports: { ...PC, row: null, suite: 'trixie-backports' },
  arm64: { ...ARM64, row: 'arm64' },
  'arm64-16k': { ...ARM64, row: 'arm64-16k' },
  riscv64: {
    row: 'riscv64',
    board: () => ['-machine', 'virt'],
    kernelArgs: ['console=ttyS0'],
  },
  'ppc64le-64k': {
    row: 'ppc64le-64k',
    board: () => ['-cpu', 'power9', '-machine', 'pseries'],
    kernelArgs: ['console=hvc0'],
  },
  s390x: {
    row: 's390x',
    board: () => ['-cpu', 'max', '-machine', 's390-ccw-virtio'],
    kernelArgs: ['console=ttysclp0'],
  },
  'i386-pae': { ...PC, row: 'i386-pae' },
} as const satisfies Record<string, Machine>;
