/** Words that options and operands of balloonctl may be: for its table of commands, and for who acts on them. */
import type { VmView } from '../../../protocol/control/schema.js';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export const SORT_KEYS = ['name', 'memory', 'balloon', 'available'] as const;
export const VMMS = ['qemu', 'libvirt', 'cloud-hypervisor', 'crosvm'] as const;
export const EVENT_LEVELS = ['info', 'warn', 'error'] as const;
export const LIST_FORMATS = ['table', 'wide', 'name', 'json'] as const;
/** As records, so that the compiler asks for each. */
const STATES: Readonly<Record<VmView['state'], true>> = { connected: true, running: true, stopped: true };
const KINDS: Readonly<Record<VmView['kind'], true>> = { 'vhost-user': true, qmp: true, libvirt: true };
export const VM_STATES = Object.keys(STATES) as readonly VmView['state'][];
export const VM_KINDS = Object.keys(KINDS) as readonly VmView['kind'][];
export const WAIT_STATES = ['running', 'target', 'gone'] as const;
export const POLICY_ACTIONS = ['show', 'mode', 'pause', 'resume', 'explain', 'simulate'] as const;
export const POLICY_MODES = ['observe', 'auto', 'off', 'configured'] as const;

export const LIBVIRT_ACTIONS = ['enable', 'disable'] as const;

/** The control socket of the packaged unit, which is the default. */
export const CONTROL_SOCKET = '/run/balloond/control.sock';
