/**
 * Every operation of the control API, one row each: the server dispatches by this table and the OpenAPI
 * document is built from it, so neither can know a path that the other does not.
 */
import { LIMIT_NAMES } from './limits.js';
import type { NextStep } from './refusal.js';
import type { SchemaName } from './schema.js';

export interface Operation {
  readonly method: 'GET' | 'PATCH' | 'PUT' | 'POST' | 'DELETE';
  /** `{vm}` stands for one percent-encoded path segment: the name of a VM. */
  readonly path: string;
  readonly summary: string;
  readonly query?: Readonly<Record<string, QueryParameter>>;
  readonly body?: { readonly schema: SchemaName; readonly required: boolean; readonly hint: NextStep };
  readonly reply: SchemaName;
  /** The reply is a stream of server-sent events, each with one `reply` document as its data. */
  readonly streams?: true;
  /** The reply is not JSON but text of this media type. */
  readonly text?: string;
  /** The answer has an `ETag` of the orders for the VM; a change goes by `If-Match`. */
  readonly tagged?: true;
  /** The body may name a VM, of which there may be none. */
  readonly namesVm?: true;
  /** Why the daemon may answer 409. */
  readonly conflict?: string;
}

export interface QueryParameter {
  readonly type: 'boolean' | 'string';
  readonly description: string;
  /** All that it may be. */
  readonly enum?: readonly string[];
  /** A regular expression for what it may be, and the same in words. */
  readonly pattern?: string;
  readonly form?: string;
}

/** An event's id, or its number, or a moment (RFC 3339, with its distance from UTC). */
const SINCE =
  '^(?:\\d{1,15}|[0-9a-f]{8}-\\d{1,15}|\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d(?::\\d\\d(?:\\.\\d{1,9})?)?(?:Z|[+-]\\d\\d:\\d\\d))$';

export const OPERATIONS = {
  listVms: { method: 'GET', path: '/v1/vms', summary: 'All VMs', reply: 'VmList' },
  showVm: {
    method: 'GET',
    path: '/v1/vms/{vm}',
    summary: 'Everything known of one VM',
    reply: 'Vm',
    tagged: true,
  },
  setTarget: {
    method: 'PATCH',
    path: '/v1/vms/{vm}',
    summary: 'Set the balloon target, the limits of the cgroup, or the interval of statistics',
    query: {
      'dry-run': {
        type: 'boolean',
        description:
          'true: change nothing, and answer with the VM as it would be: its target and its orders. For targets only.',
      },
    },
    tagged: true,
    body: {
      schema: 'VmChange',
      required: true,
      hint: `send {"memoryBytes": N}, {"balloonBytes": N}, {"cacheLimitBytes": N} or {"limits": {${LIMIT_NAMES.map((name) => `"${name}": N`).join(', ')}}}, exactly one of them, in whole bytes; a limit may be "max", "follow" or "restore" as well; or {"statsIntervalSeconds": N}, 0 or 0.1 to 86400`,
    },
    reply: 'Vm',
    conflict: 'The VM cannot take this target, or its cgroup cannot take these limits.',
  },
  showStats: {
    method: 'GET',
    path: '/v1/vms/{vm}/stats',
    summary: 'Guest statistics',
    query: {
      refresh: {
        type: 'boolean',
        description: 'Ask the guest for fresh statistics and wait for them up to 5 seconds.',
      },
    },
    reply: 'Stats',
    conflict: 'The guest has sent no statistics, or none in time.',
  },
  inhibit: {
    method: 'PUT',
    path: '/v1/vms/{vm}/inhibit',
    summary: 'Stop discarding for this VM',
    body: {
      schema: 'Inhibit',
      required: false,
      hint: 'send nothing or {"reason": "..."}, one line of 1 to 200 characters',
    },
    reply: 'Vm',
    conflict: 'The VM cannot be inhibited now.',
  },
  allow: {
    method: 'DELETE',
    path: '/v1/vms/{vm}/inhibit',
    summary: 'Resume discarding for this VM',
    reply: 'Vm',
    conflict: 'The VM cannot be allowed now.',
  },
  listOrders: {
    method: 'GET',
    path: '/v1/orders',
    summary: 'The orders that hold, also for VMs that are not connected',
    reply: 'VmOrdersList',
  },
  takeBackOrders: {
    method: 'DELETE',
    path: '/v1/orders/{vm}',
    summary: 'Take all orders of an operator for a VM back, also for one that is not connected',
    reply: 'VmOrders',
    conflict: 'The cgroup of the VM cannot take its former limits.',
  },
  listAdopted: {
    method: 'GET',
    path: '/v1/adopted',
    summary: 'The QMP sockets and domains whose VMs are adopted, or are to be',
    reply: 'AdoptedList',
  },
  changeAdopted: {
    method: 'PATCH',
    path: '/v1/adopted',
    summary:
      "Adopt the VM of a QMP socket, to move QEMU's own balloon, or release the VM; the same of a domain of libvirt",
    body: {
      schema: 'AdoptChange',
      required: true,
      hint: 'send {"path": "PATH", "adopted": true} or {"path": "PATH", "adopted": false}',
    },
    reply: 'Adopted',
    conflict: 'The VM cannot be adopted, or the configuration adopts it.',
  },
  showPolicy: {
    method: 'GET',
    path: '/v1/policy',
    summary: 'The host and the VMs as the policy sees them, and the last decision for each VM',
    reply: 'Policy',
  },
  changePolicy: {
    method: 'PATCH',
    path: '/v1/policy',
    summary: 'Pause or resume the policy, for one VM or all, or set its mode',
    body: {
      schema: 'PolicyChange',
      required: true,
      hint: 'send {"paused": true} or {"paused": false}, with "vm": "NAME" for one VM; or {"mode": "observe"}, auto or off, or {"mode": null} for the mode of the configuration',
    },
    reply: 'Policy',
    namesVm: true,
  },
  advisePolicy: {
    method: 'GET',
    path: '/v1/policy/advice',
    summary: 'The actions that mode auto would take now; none is taken',
    reply: 'PolicyAdvice',
  },
  streamEvents: {
    method: 'GET',
    path: '/v1/events',
    summary: 'Events that say what happened and why, as server-sent events',
    query: {
      since: {
        type: 'string',
        pattern: SINCE,
        form: 'the id of an event, its seq (0: all remembered events), or a moment such as 2026-11-27T10:00:00Z',
        description:
          'First replay the remembered events after the event of this `id` or `seq` (0: all of them), or since this moment. An id of another epoch, or beyond the newest event, replays all remembered events, and a comment in the stream says so. Without `since`, and without a `Last-Event-ID` header, which wins: new events only.',
      },
      vm: { type: 'string', description: 'Only events of the VM of this name.' },
      level: {
        type: 'string',
        enum: ['info', 'warn', 'error'],
        description: 'Only events of this level or a higher one.',
      },
      follow: { type: 'boolean', description: 'false: end after the replay. Default true.' },
    },
    reply: 'Event',
    streams: true,
  },
  showDaemon: {
    method: 'GET',
    path: '/v1/daemon',
    summary: 'The daemon itself: its version, and who holds its VMs while none runs',
    reply: 'Daemon',
  },
  changeDaemon: {
    method: 'PATCH',
    path: '/v1/daemon',
    summary: 'Set the log level, until the daemon restarts or reads its configuration again',
    body: {
      schema: 'DaemonChange',
      required: true,
      hint: 'send {"logLevel": "debug"}, or trace, info, warn, error or fatal',
    },
    reply: 'Daemon',
  },
  reload: {
    method: 'POST',
    path: '/v1/reload',
    summary: 'Read the configuration file again; a file with a mistake changes nothing',
    query: {
      'dry-run': {
        type: 'boolean',
        description: 'true: say what would change, and change nothing.',
      },
    },
    reply: 'Reload',
    conflict: 'The file cannot be honoured; the detail says where and why.',
  },
  metrics: {
    method: 'GET',
    path: '/metrics',
    summary: 'Measurements for Prometheus, each with its help',
    reply: 'Metrics',
    text: 'text/plain; version=0.0.4; charset=utf-8',
  },
  health: { method: 'GET', path: '/healthz', summary: 'Whether the daemon serves', reply: 'Health' },
  openApi: { method: 'GET', path: '/openapi.json', summary: 'This document', reply: 'OpenApi' },
} as const satisfies Record<string, Operation>;

export type OperationId = keyof typeof OPERATIONS;
