/**
 * The documents of the control API as JSON Schema: the one source of their TypeScript types, of what the
 * server accepts and of the OpenAPI document. Literals only, so importing this costs a client nothing.
 * Field names are a stable interface. Every `...Bytes` is a whole number of bytes.
 */
import type { XStatic } from 'typebox/schema';
import { EVENT_NAMES, type EventName } from './events.js';
import { ADOPT_CHANGE, ADOPTED, DAEMON, DAEMON_CHANGE, HEALTH, RELOAD } from './schema-daemon.js';
import { VM_ORDERS, type ORDER } from './schema-order.js';
import { POLICY_ADVICE, POLICY_CHANGE, POLICY_STATE, type POOL_STATE } from './schema-policy.js';
import { TARGET, LIMIT_WORD, LIMIT_REQUEST, VM_CHANGE, INHIBIT } from './schema-vm-change.js';
import { BALLOON, STATS, DIAGNOSIS, VM } from './schema-vm.js';

const PROBLEM = {
  type: 'object',
  description: 'RFC 9457 problem details.',
  required: ['title', 'status', 'detail'],
  properties: {
    title: { type: 'string' },
    status: { type: 'integer', minimum: 400, maximum: 599 },
    detail: { type: 'string', description: 'A sentence that says what is wrong and what to do next.' },
  },
} as const;

const EVENT = {
  type: 'object',
  additionalProperties: false,
  required: ['seq', 'epoch', 'id', 'time', 'event', 'level', 'message', 'fields'],
  properties: {
    seq: { type: 'integer', minimum: 1, description: 'Rises by 1 with each event of its epoch.' },
    epoch: {
      type: 'string',
      pattern: '^[0-9a-f]{8}$',
      description: 'A daemon that goes on with the events of the one before it keeps the epoch.',
    },
    id: {
      type: 'string',
      pattern: '^[0-9a-f]{8}-[0-9]+$',
      description: 'EPOCH-SEQ: where to go on from, as `since` or `Last-Event-ID`.',
    },
    time: { type: 'string', format: 'date-time' },
    // The cast is for inference only, which reads the element types of tuples.
    event: { enum: EVENT_NAMES as unknown as readonly [EventName] },
    level: { enum: ['debug', 'info', 'warn', 'error'] },
    vm: { type: 'string' },
    message: { type: 'string' },
    fields: { type: 'object', additionalProperties: true },
  },
} as const;

/** Every document by the name it has in the OpenAPI document. */
export const SCHEMAS = {
  Vm: VM,
  VmList: { type: 'array', items: VM },
  Stats: STATS,
  VmChange: VM_CHANGE,
  Inhibit: INHIBIT,
  VmOrders: VM_ORDERS,
  VmOrdersList: { type: 'array', items: VM_ORDERS },
  Policy: POLICY_STATE,
  PolicyChange: POLICY_CHANGE,
  PolicyAdvice: POLICY_ADVICE,
  Problem: PROBLEM,
  Adopted: ADOPTED,
  AdoptedList: { type: 'array', items: ADOPTED },
  AdoptChange: ADOPT_CHANGE,
  Daemon: DAEMON,
  DaemonChange: DAEMON_CHANGE,
  Health: HEALTH,
  Reload: RELOAD,
  Event: EVENT,
  Metrics: { type: 'string', description: "Prometheus' text format 0.0.4." },
  OpenApi: { type: 'object' },
} as const;

export type SchemaName = keyof typeof SCHEMAS;
export type VmView = XStatic<typeof VM>;
export type VmDiagnosis = XStatic<typeof DIAGNOSIS>;
export type VmOrder = XStatic<typeof ORDER>;
export type VmOrders = XStatic<typeof VM_ORDERS>;
export type BalloonView = XStatic<typeof BALLOON>;
export type VmStats = XStatic<typeof STATS>;
export type LimitWord = XStatic<typeof LIMIT_WORD>;
export type LimitRequest = XStatic<typeof LIMIT_REQUEST>;
export type VmChange = XStatic<typeof VM_CHANGE>;
export type TargetRequest = XStatic<typeof TARGET>;
export type PolicyState = XStatic<typeof POLICY_STATE>;
export type PoolState = XStatic<typeof POOL_STATE>;
export type PolicyAdvice = XStatic<typeof POLICY_ADVICE>;
export type PolicyChange = XStatic<typeof POLICY_CHANGE>;
export type AdoptedSocket = XStatic<typeof ADOPTED>;
export type AdoptChange = XStatic<typeof ADOPT_CHANGE>;
export type InhibitRequest = XStatic<typeof INHIBIT>;
export type ProblemDocument = XStatic<typeof PROBLEM>;
export type ReloadReport = XStatic<typeof RELOAD>;
export type DaemonEvent = XStatic<typeof EVENT>;
export type DaemonView = XStatic<typeof DAEMON>;
export type DaemonChange = XStatic<typeof DAEMON_CHANGE>;
