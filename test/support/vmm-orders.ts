// What three VMMs say to a back-end, and in which order: a table each, written from what the VMMs were seen to send.
import { PROTOCOL_F, REQUEST, bits } from './wire.js';

/** A message about the device as a whole; `memory`: ADD_MEM_REG of each region that was not announced yet. */
type DeviceStep =
  | 'SET_OWNER'
  | 'GET_FEATURES'
  | 'GET_PROTOCOL_FEATURES'
  | 'SET_PROTOCOL_FEATURES'
  | 'GET_QUEUE_NUM'
  | 'GET_MAX_MEM_SLOTS'
  | 'SET_BACKEND_REQ_FD'
  | 'SET_FEATURES'
  | 'SET_MEM_TABLE'
  | 'memory';

/** A message about one queue; `on` and `off` are SET_VRING_ENABLE. */
export type QueueStep =
  | 'SET_VRING_NUM'
  | 'SET_VRING_ADDR'
  | 'SET_VRING_BASE'
  | 'SET_VRING_KICK'
  | 'SET_VRING_CALL'
  | 'SET_VRING_ERR'
  | 'GET_VRING_BASE'
  | 'on'
  | 'off';

/** Messages for one queue after the other: for all that the VMM has, or for those that the driver set up. */
export interface ForQueues {
  of: 'all' | 'set-up';
  say: readonly QueueStep[];
}

export type Step = DeviceStep | ForQueues;

export interface VmmOrder {
  name: string;
  /** Bits of GET_FEATURES that the VMM lets its guest see, with those that it acks itself. */
  passes: bigint;
  /** Protocol features that the VMM acks where they are offered. */
  protocolFeatures: bigint;
  /** Requests that carry need_reply once REPLY_ACK is acked. */
  needReply: ReadonlySet<number>;
  /** The guest's reads and writes of the config space are sent as they are, or each as the whole of it. */
  config: 'whole' | 'field';
  /** SET_VRING_BASE is said to be where the device stands, or where the driver does. */
  base: 'device' | 'driver';
  /** Kick eventfds are readable from the start. */
  kicksFirst: boolean;
  connect: readonly Step[];
  start: readonly Step[];
  /** The guest resets the device, and its driver may start again on this connection. Null: a reboot is a new connection. */
  reset: readonly Step[] | null;
  pause: readonly Step[];
  resume: readonly Step[];
  /** In place of `connect`, for a driver that runs; null: the VM ends with its back-end. */
  reconnect: readonly Step[] | null;
}

const all = (...say: QueueStep[]): ForQueues => ({ of: 'all', say });
const setUp = (...say: QueueStep[]): ForQueues => ({ of: 'set-up', say });

const QEMU_CONNECT: readonly Step[] = [
  'GET_FEATURES',
  'GET_PROTOCOL_FEATURES',
  'SET_PROTOCOL_FEATURES',
  'GET_QUEUE_NUM',
  'GET_MAX_MEM_SLOTS',
  'SET_BACKEND_REQ_FD',
  'SET_OWNER',
  'GET_FEATURES',
  all('SET_VRING_CALL', 'SET_VRING_ERR'),
];
const QEMU_START: readonly Step[] = [
  'SET_FEATURES',
  'memory',
  setUp('SET_VRING_NUM', 'SET_VRING_BASE', 'SET_VRING_ADDR', 'SET_VRING_KICK', 'SET_VRING_CALL'),
  all('on'),
  all('SET_VRING_CALL'),
];
const QEMU_STOP: readonly Step[] = [all('off'), setUp('GET_VRING_BASE')];

export const QEMU: VmmOrder = {
  name: 'QEMU 11.1',
  passes: ~0n,
  protocolFeatures: bits(
    PROTOCOL_F.MQ,
    PROTOCOL_F.LOG_SHMFD,
    PROTOCOL_F.REPLY_ACK,
    PROTOCOL_F.BACKEND_REQ,
    PROTOCOL_F.CONFIG,
    PROTOCOL_F.BACKEND_SEND_FD,
    PROTOCOL_F.INFLIGHT_SHMFD,
    PROTOCOL_F.RESET_DEVICE,
    PROTOCOL_F.CONFIGURE_MEM_SLOTS,
    PROTOCOL_F.DEVICE_STATE,
  ),
  needReply: new Set([
    REQUEST.SET_MEM_TABLE,
    REQUEST.ADD_MEM_REG,
    REQUEST.REM_MEM_REG,
    REQUEST.SET_CONFIG,
    REQUEST.SET_BACKEND_REQ_FD,
  ]),
  config: 'whole',
  base: 'device',
  kicksFirst: true,
  connect: QEMU_CONNECT,
  start: QEMU_START,
  reset: QEMU_STOP,
  pause: QEMU_STOP,
  resume: QEMU_START,
  reconnect: QEMU_CONNECT,
};

const RUST_VMM_START: readonly Step[] = [
  'SET_FEATURES',
  'SET_MEM_TABLE',
  setUp('SET_VRING_NUM'),
  setUp('SET_VRING_ADDR', 'SET_VRING_BASE', 'SET_VRING_CALL', 'SET_VRING_KICK'),
  setUp('on'),
  'SET_BACKEND_REQ_FD',
];

export const CLOUD_HYPERVISOR: VmmOrder = {
  name: 'cloud-hypervisor 52-54',
  // Bits 0 to 23 belong to the kind of device, of which it knows nothing.
  passes: bits(28, 29, 30, 32, 35, 36, 38),
  protocolFeatures: bits(
    PROTOCOL_F.MQ,
    PROTOCOL_F.LOG_SHMFD,
    PROTOCOL_F.REPLY_ACK,
    PROTOCOL_F.BACKEND_REQ,
    PROTOCOL_F.CONFIG,
    PROTOCOL_F.INFLIGHT_SHMFD,
    PROTOCOL_F.CONFIGURE_MEM_SLOTS,
  ),
  needReply: new Set(Object.values(REQUEST)),
  config: 'field',
  base: 'driver',
  kicksFirst: false,
  connect: ['SET_OWNER', 'GET_FEATURES', 'GET_PROTOCOL_FEATURES', 'SET_PROTOCOL_FEATURES', 'GET_QUEUE_NUM'],
  start: RUST_VMM_START,
  reset: null,
  pause: [setUp('off')],
  resume: [setUp('on')],
  reconnect: ['SET_OWNER', 'GET_FEATURES', 'SET_PROTOCOL_FEATURES'],
};

const CROSVM_START: readonly Step[] = [
  'SET_FEATURES',
  'SET_MEM_TABLE',
  setUp('SET_VRING_NUM', 'SET_VRING_ADDR', 'SET_VRING_BASE', 'SET_VRING_CALL', 'SET_VRING_KICK', 'on'),
];

export const CROSVM: VmmOrder = {
  name: 'crosvm 2026',
  // All that belong to the kind of device, and few of the rings.
  passes: 0xfffc_0000_00ff_ffffn | bits(29, 30, 32),
  protocolFeatures: bits(
    PROTOCOL_F.MQ,
    PROTOCOL_F.REPLY_ACK,
    PROTOCOL_F.BACKEND_REQ,
    PROTOCOL_F.CONFIG,
    PROTOCOL_F.DEVICE_STATE,
  ),
  needReply: new Set(),
  config: 'field',
  base: 'device',
  kicksFirst: false,
  connect: [
    'SET_OWNER',
    'GET_FEATURES',
    'GET_PROTOCOL_FEATURES',
    'SET_PROTOCOL_FEATURES',
    'SET_BACKEND_REQ_FD',
    'GET_QUEUE_NUM',
  ],
  start: CROSVM_START,
  reset: null,
  pause: [setUp('off', 'GET_VRING_BASE')],
  resume: CROSVM_START,
  reconnect: null,
};

export const VMM_ORDERS: readonly VmmOrder[] = [QEMU, CLOUD_HYPERVISOR, CROSVM];

/** For tests in which a VM has to be there, and that are about nothing that a VMM says. */
export const ANY_VMM = QEMU;

let usual: VmmOrder | null = null;

/** The order of frontends that name none: that of `underOrder`. */
export function usualOrder(): VmmOrder {
  if (usual === null) {
    throw new Error('a test on the wire says whose messages it sends: see inEachOrder and ANY_VMM');
  }
  return usual;
}

/** Does `work` with `order` as the order of frontends that name none; one at a time in a process. */
export async function underOrder<T>(order: VmmOrder, work: () => Promise<T>): Promise<T> {
  const before = usual;
  usual = order;
  try {
    return await work();
  } finally {
    usual = before;
  }
}
