/** Words that options and operands of balloonctl may be: for its table of commands, and for who acts on them. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export const SORT_KEYS = ['name', 'memory', 'balloon', 'available'] as const;
export const VMMS = ['qemu', 'libvirt', 'cloud-hypervisor', 'crosvm'] as const;
export const EVENT_LEVELS = ['info', 'warn', 'error'] as const;
export const POLICY_ACTIONS = ['show', 'pause', 'resume', 'explain', 'simulate'] as const;

export const LIBVIRT_ACTIONS = ['enable', 'disable'] as const;

/** The control socket of the packaged unit, which is the default. */
export const CONTROL_SOCKET = '/run/balloond/control.sock';
