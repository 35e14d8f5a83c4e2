/**
 * The documents of the control API as JSON Schema: the one source of their TypeScript types, of what the
 * server accepts and of the OpenAPI document. Literals only, so importing this costs a client nothing.
 * Field names are a stable interface. Every `...Bytes` is a whole number of bytes.
 */
import type { XStatic } from 'typebox/schema';
import { EVENT_NAMES, type EventName } from './events.js';

const BYTES = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const;

const BALLOON = {
  type: 'object',
  additionalProperties: false,
  required: [
    'targetBytes',
    'actualBytes',
    'pendingBytes',
    'discardedBytesTotal',
    'inflatedBytesTotal',
    'deflatedBytesTotal',
    'reportedBytesTotal',
    'discardSecondsTotal',
  ],
  properties: {
    targetBytes: { ...BYTES, description: 'What the guest is asked to give up.' },
    actualBytes: { ...BYTES, description: 'What it has given up.' },
    pendingBytes: { ...BYTES, description: 'Given up by the guest, not yet discarded on the host.' },
    discardedBytesTotal: BYTES,
    inflatedBytesTotal: BYTES,
    deflatedBytesTotal: BYTES,
    reportedBytesTotal: { ...BYTES, description: 'Free pages the guest reported.' },
    discardSecondsTotal: {
      type: 'number',
      minimum: 0,
      description: 'CPU that the system calls for it took.',
    },
  },
} as const;

const STATS = {
  type: 'object',
  description: 'Guest statistics by their virtio names, in bytes or counts; an unknown tag is `tag-N`.',
  required: ['ageSeconds'],
  properties: { ageSeconds: { type: 'number', minimum: 0, description: 'Since the guest sent them.' } },
  additionalProperties: { type: 'number' },
} as const;

const CGROUP = {
  type: 'object',
  additionalProperties: false,
  required: ['path', 'currentBytes', 'highBytes', 'maxBytes'],
  properties: {
    path: { type: 'string' },
    currentBytes: BYTES,
    highBytes: { anyOf: [BYTES, { type: 'null' }], description: 'null: no limit.' },
    maxBytes: { anyOf: [BYTES, { type: 'null' }], description: 'null: no limit.' },
  },
} as const;

const POLICY = {
  type: 'object',
  additionalProperties: false,
  required: ['band', 'minBytes', 'maxBytes', 'mode'],
  properties: { band: { type: 'integer' }, minBytes: BYTES, maxBytes: BYTES, mode: { type: 'string' } },
} as const;

const NULL = { type: 'null' } as const;

const VM = {
  type: 'object',
  additionalProperties: false,
  required: [
    'name',
    'pid',
    'state',
    'ramBytes',
    'balloon',
    'cache',
    'inhibited',
    'verdict',
    'features',
    'stats',
    'cgroup',
    'policy',
  ],
  properties: {
    name: { type: 'string', minLength: 1 },
    pid: { type: 'integer', minimum: 1 },
    state: {
      enum: ['connected', 'running', 'stopped'],
      description: 'connected: the guest driver has not started yet.',
    },
    ramBytes: BYTES,
    balloon: BALLOON,
    cache: { anyOf: [BALLOON, NULL], description: 'The page cache balloon, if the VM has one.' },
    inhibited: { type: ['string', 'null'], description: 'Why nothing is discarded; null: it is.' },
    verdict: { type: ['string', 'null'], description: 'A sentence to act on; null: nothing to fix.' },
    features: { type: 'array', items: { type: 'string' }, description: 'Acknowledged, by spec name.' },
    stats: { anyOf: [STATS, NULL] },
    cgroup: { anyOf: [CGROUP, NULL] },
    policy: { anyOf: [POLICY, NULL] },
  },
} as const;

const TARGET = {
  description: 'Exactly one of: what the guest keeps, or what it gives up.',
  anyOf: [
    {
      type: 'object',
      additionalProperties: false,
      required: ['memoryBytes'],
      properties: { memoryBytes: { ...BYTES, description: 'What the guest keeps.' } },
    },
    {
      type: 'object',
      additionalProperties: false,
      required: ['balloonBytes'],
      properties: { balloonBytes: { ...BYTES, description: 'What the guest gives up.' } },
    },
  ],
} as const;

const INHIBIT = {
  type: 'object',
  additionalProperties: false,
  properties: {
    reason: { type: 'string', minLength: 1, maxLength: 200, pattern: '^[^\\x00-\\x1f\\x7f]*$' },
  },
} as const;

const PROBLEM = {
  type: 'object',
  description: 'RFC 9457 problem details.',
  required: ['title', 'status', 'detail'],
  properties: {
    title: { type: 'string' },
    status: { type: 'integer', minimum: 400, maximum: 599 },
    detail: { type: 'string', description: 'A sentence that says what to do.' },
  },
} as const;

const HEALTH = {
  type: 'object',
  additionalProperties: false,
  required: ['status', 'version'],
  properties: { status: { const: 'ok' }, version: { type: 'string' } },
} as const;

const EVENT = {
  type: 'object',
  additionalProperties: false,
  required: ['seq', 'time', 'event', 'level', 'message', 'fields'],
  properties: {
    seq: { type: 'integer', minimum: 1, description: 'Rises with each event since the daemon started.' },
    time: { type: 'string', format: 'date-time' },
    // The cast is for inference only, which reads the element types of tuples.
    event: { enum: EVENT_NAMES as unknown as readonly [EventName] },
    level: { enum: ['debug', 'info', 'warn', 'error'] },
    vm: { type: 'string' },
    message: { type: 'string' },
    fields: { type: 'object', additionalProperties: true },
  },
} as const;

const RELOAD = {
  type: 'object',
  additionalProperties: false,
  required: ['file', 'changes'],
  properties: {
    file: { type: 'string' },
    changes: {
      type: 'array',
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['key', 'effect'],
        properties: {
          key: { type: 'string', description: 'What was changed in the file.' },
          effect: {
            enum: ['now', 'next-connection', 'restart'],
            description: 'It is so now, for VMs that connect from now on, or when the daemon restarts.',
          },
        },
      },
    },
  },
} as const;

/** Every document by the name it has in the OpenAPI document. */
export const SCHEMAS = {
  Vm: VM,
  VmList: { type: 'array', items: VM },
  Stats: STATS,
  Target: TARGET,
  Inhibit: INHIBIT,
  Problem: PROBLEM,
  Health: HEALTH,
  Reload: RELOAD,
  Event: EVENT,
  OpenApi: { type: 'object' },
} as const;

export type SchemaName = keyof typeof SCHEMAS;
export type VmView = XStatic<typeof VM>;
export type BalloonView = XStatic<typeof BALLOON>;
export type VmStats = XStatic<typeof STATS>;
export type TargetRequest = XStatic<typeof TARGET>;
export type InhibitRequest = XStatic<typeof INHIBIT>;
export type ProblemDocument = XStatic<typeof PROBLEM>;
export type ReloadReport = XStatic<typeof RELOAD>;
export type DaemonEvent = XStatic<typeof EVENT>;
