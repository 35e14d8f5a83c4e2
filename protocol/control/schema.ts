/**
 * The documents of the control API as JSON Schema: the one source of their TypeScript types, of what the
 * server accepts and of the OpenAPI document. Literals only, so importing this costs a client nothing.
 * Field names are a stable interface. Every `...Bytes` is a whole number of bytes.
 */
import type { XStatic } from 'typebox/schema';
import { DIAGNOSIS_CODES } from './diagnosis.js';
import { EVENT_NAMES, type EventName } from './events.js';
import type { LimitName } from './limits.js';

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
    targetBytes: { ...BYTES, description: 'Memory that the guest is asked to give up.' },
    actualBytes: { ...BYTES, description: 'Memory that the guest has given up.' },
    pendingBytes: {
      ...BYTES,
      description: 'Memory that the guest has given up and the host has not discarded yet.',
    },
    discardedBytesTotal: BYTES,
    inflatedBytesTotal: BYTES,
    deflatedBytesTotal: BYTES,
    reportedBytesTotal: { ...BYTES, description: 'Free memory that the guest reported.' },
    discardSecondsTotal: {
      type: 'number',
      minimum: 0,
      description: 'CPU time of the system calls that discard.',
    },
  },
} as const;

const STATS = {
  type: 'object',
  description: 'Guest statistics by their virtio names, in bytes or counts; an unknown tag is `tag-N`.',
  required: ['ageSeconds'],
  properties: {
    ageSeconds: { type: 'number', minimum: 0, description: 'Time since the guest sent the statistics.' },
  },
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

const NULL = { type: 'null' } as const;

const DIAGNOSIS = {
  type: 'object',
  additionalProperties: false,
  required: ['code', 'text', 'remedy'],
  properties: {
    code: { enum: DIAGNOSIS_CODES, description: 'A stable name for programs to go by.' },
    text: { type: 'string', description: 'The words for what is wrong. They may change with any version.' },
    remedy: { type: 'string', description: 'The next step.' },
  },
} as const;

const LIMIT = {
  anyOf: [BYTES, { enum: ['max', 'follow'] }, { type: 'null' }],
  description: 'The limit that an operator asked for; null: none.',
} as const;

const LIMITS = {
  type: 'object',
  additionalProperties: false,
  required: ['high', 'max', 'mayUseBytes', 'problem', 'diagnosis'],
  properties: {
    ...({ high: LIMIT, max: LIMIT } satisfies Record<LimitName, object>),
    mayUseBytes: { ...BYTES, description: 'Memory that the guest may have in use now.' },
    problem: {
      type: ['string', 'null'],
      description: 'The reason why the limits that an operator asked for do not hold; null: none.',
    },
    diagnosis: { anyOf: [DIAGNOSIS, NULL], description: 'The same reason for programs; null: none.' },
  },
} as const;

const POLICY = {
  type: 'object',
  additionalProperties: false,
  required: ['band', 'minBytes', 'maxBytes', 'mode'],
  properties: {
    band: { type: 'string' },
    minBytes: BYTES,
    maxBytes: BYTES,
    mode: {
      enum: ['observe', 'auto', 'off', 'paused', 'manual'],
      description: 'paused: all VMs, by an operator. manual: this VM, by a target set by hand or a pause.',
    },
  },
} as const;

const ORDER = {
  type: 'object',
  description:
    'An order that holds until it is taken back: for a VM by its name, or of the policy for all VMs.',
  additionalProperties: false,
  required: ['order', 'says', 'by', 'since', 'undo'],
  properties: {
    order: { enum: ['inhibit', 'target', 'cache-limit', 'limit-high', 'limit-max', 'policy'] },
    says: { type: 'string', description: 'The order in words.' },
    by: {
      enum: ['operator', 'configuration'],
      description: 'operator: a command or a request. configuration: a [[vm]] table.',
    },
    since: {
      anyOf: [{ type: 'string', format: 'date-time' }, NULL],
      description:
        'The time of the order; null: it is in the configuration, or an earlier build did not note the time.',
    },
    undo: { type: 'string', description: 'The command, or the step, that takes the order back.' },
  },
} as const;

/** What the policy sees and last decided. */
const POLICY_STATE = {
  type: 'object',
  additionalProperties: false,
  required: ['mode', 'paused', 'problem', 'reserveBytes', 'host', 'bands', 'vms', 'orders'],
  properties: {
    mode: { enum: ['observe', 'auto', 'off'] },
    paused: { type: 'boolean' },
    problem: {
      type: ['string', 'null'],
      description: 'The reason why the policy works with less than it needs; null: none.',
    },
    reserveBytes: BYTES,
    host: {
      anyOf: [
        {
          type: 'object',
          additionalProperties: false,
          required: ['totalBytes', 'availableBytes', 'pressurePercent', 'short'],
          properties: {
            totalBytes: {
              ...BYTES,
              description: 'Memory of the host, or the part of it that VMs may have (memory in [policy]).',
            },
            availableBytes: BYTES,
            pressurePercent: {
              type: ['number', 'null'],
              description: 'PSI some avg10; null: the kernel does not count it.',
            },
            short: {
              type: 'boolean',
              description: 'Whether the host has less memory available than its reserve.',
            },
          },
        },
        { type: 'null' },
      ],
    },
    bands: { type: 'array', items: { type: 'string' }, description: 'Highest first.' },
    orders: {
      type: 'array',
      items: ORDER,
      description: 'The orders for all VMs: the pause of the policy, while there is one.',
    },
    vms: {
      type: 'array',
      items: {
        type: 'object',
        additionalProperties: false,
        required: [
          'name',
          'band',
          'minBytes',
          'maxBytes',
          'weight',
          'mode',
          'force',
          'said',
          'saidAt',
          'now',
        ],
        properties: {
          name: { type: 'string' },
          ...POLICY.properties,
          weight: { type: 'number' },
          force: { enum: ['none', 'high', 'max', 'kill'] },
          said: {
            type: ['string', 'null'],
            description: 'The last decision about this VM and its reason, in words; null: none yet.',
          },
          saidAt: { type: ['string', 'null'], description: 'Time of the last decision; null: none yet.' },
          now: {
            type: 'string',
            description:
              'The amount that is asked of this VM at present, or the reason why none is, in words.',
          },
        },
      },
    },
  },
} as const;

const POLICY_CHANGE = {
  type: 'object',
  additionalProperties: false,
  required: ['paused'],
  properties: {
    paused: { type: 'boolean', description: 'true: the policy does nothing; false: the policy acts again.' },
    vm: {
      type: 'string',
      minLength: 1,
      description: 'The VM to pause or resume; without it, the whole policy.',
    },
  },
} as const;

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
    'diagnosis',
    'features',
    'stats',
    'cgroup',
    'limits',
    'policy',
    'orders',
    'statsIntervalSeconds',
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
    inhibited: {
      type: ['string', 'null'],
      description: 'The reason why nothing is discarded; null: pages are discarded.',
    },
    verdict: {
      type: ['string', 'null'],
      description: 'A sentence that says what is wrong and what to do next; null: nothing is wrong.',
    },
    diagnosis: { anyOf: [DIAGNOSIS, NULL], description: 'The verdict for programs; null: nothing is wrong.' },
    features: {
      type: 'array',
      items: { type: 'string' },
      description: 'Features that the driver acknowledged, by their names in the specification.',
    },
    stats: { anyOf: [STATS, NULL] },
    cgroup: { anyOf: [CGROUP, NULL] },
    limits: LIMITS,
    policy: { anyOf: [POLICY, NULL] },
    orders: { type: 'array', items: ORDER, description: 'The orders that hold for this VM.' },
    statsIntervalSeconds: {
      type: 'number',
      minimum: 0,
      description: 'How often the guest is asked for statistics; 0: never.',
    },
  },
} as const;

const TARGET = {
  anyOf: [
    {
      type: 'object',
      additionalProperties: false,
      required: ['memoryBytes'],
      properties: { memoryBytes: { ...BYTES, description: 'Memory that the guest keeps.' } },
    },
    {
      type: 'object',
      additionalProperties: false,
      required: ['balloonBytes'],
      properties: { balloonBytes: { ...BYTES, description: 'Memory that the guest gives up.' } },
    },
    {
      type: 'object',
      additionalProperties: false,
      required: ['cacheLimitBytes'],
      properties: {
        cacheLimitBytes: {
          ...BYTES,
          description: 'The most memory that the page cache balloon of the VM may hold.',
        },
      },
    },
  ],
} as const;

const LIMIT_WORD = {
  anyOf: [BYTES, { enum: ['max', 'follow', 'restore'] }],
  description:
    'Bytes; max: no limit; follow: a limit above the memory that the guest may use; restore: the limit that the daemon found.',
} as const;

const LIMIT_REQUEST = {
  type: 'object',
  description: 'Limits of the cgroup of the VM: memory.high, memory.max, or both.',
  additionalProperties: false,
  minProperties: 1,
  properties: { high: LIMIT_WORD, max: LIMIT_WORD } satisfies Record<LimitName, object>,
} as const;

const LIMITS_BODY = {
  type: 'object',
  additionalProperties: false,
  required: ['limits'],
  properties: { limits: LIMIT_REQUEST },
} as const;

const STATS_INTERVAL_BODY = {
  type: 'object',
  additionalProperties: false,
  required: ['statsIntervalSeconds'],
  properties: {
    statsIntervalSeconds: {
      anyOf: [{ enum: [0] }, { type: 'number', minimum: 0.1, maximum: 86400 }],
      description: 'How often the guest is asked for statistics; 0: never.',
    },
  },
} as const;

const VM_CHANGE = {
  description:
    'Exactly one of: the memory that the guest keeps, the memory that it gives up, the limit of its page cache balloon, the limits of its cgroup, the interval of its statistics.',
  anyOf: [...TARGET.anyOf, LIMITS_BODY, STATS_INTERVAL_BODY],
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
    detail: { type: 'string', description: 'A sentence that says what is wrong and what to do next.' },
  },
} as const;

const LOG_LEVEL = {
  enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
  description: 'The least level that the daemon logs.',
} as const;

const DAEMON = {
  type: 'object',
  additionalProperties: false,
  required: [
    'version',
    'pid',
    'startedAt',
    'holder',
    'heldOver',
    'holderProblem',
    'holderRemedy',
    'configFiles',
    'configMistake',
    'control',
    'logLevel',
  ],
  properties: {
    version: { type: 'string' },
    pid: { type: 'integer', minimum: 1 },
    startedAt: { type: 'string', format: 'date-time' },
    holder: {
      anyOf: [{ enum: ['systemd', 'keeper'] }, NULL],
      description:
        'The process that holds the sockets and the memory of VMs while no daemon runs; null: none does.',
    },
    heldOver: {
      enum: ['stop', 'restart', 'nothing'],
      description:
        'The longest absence of the daemon that VMs outlive. stop: any. restart: one that the holder ends by itself. nothing: none.',
    },
    holderProblem: {
      type: ['string', 'null'],
      description: 'Why the end of the daemon puts VMs at risk; null: it does not.',
    },
    holderRemedy: {
      type: ['string', 'null'],
      description: 'The next step against that risk; null: none is needed.',
    },
    configFiles: {
      type: 'array',
      items: { type: 'string' },
      description: 'The configuration files that the daemon read.',
    },
    configMistake: {
      type: ['string', 'null'],
      description:
        'The first mistake of the files as they were when the daemon last read them: other settings are in force than those of the files. null: there is none.',
    },
    control: { type: 'string', description: 'The path of this socket.' },
    logLevel: LOG_LEVEL,
  },
} as const;

const DAEMON_CHANGE = {
  type: 'object',
  additionalProperties: false,
  required: ['logLevel'],
  properties: { logLevel: LOG_LEVEL },
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

const RELOAD = {
  type: 'object',
  additionalProperties: false,
  required: ['file', 'files', 'changes'],
  properties: {
    file: { type: 'string' },
    files: { type: 'array', items: { type: 'string' }, description: 'All files that were read, in order.' },
    changes: {
      type: 'array',
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['key', 'effect'],
        properties: {
          key: { type: 'string', description: 'The key that changed in the file.' },
          effect: {
            enum: ['now', 'next-connection', 'restart'],
            description:
              'When the change takes effect: now, for VMs that connect from now on, or when the daemon restarts.',
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
  VmChange: VM_CHANGE,
  Inhibit: INHIBIT,
  Policy: POLICY_STATE,
  PolicyChange: POLICY_CHANGE,
  Problem: PROBLEM,
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
export type BalloonView = XStatic<typeof BALLOON>;
export type VmStats = XStatic<typeof STATS>;
export type LimitWord = XStatic<typeof LIMIT_WORD>;
export type LimitRequest = XStatic<typeof LIMIT_REQUEST>;
export type VmChange = XStatic<typeof VM_CHANGE>;
export type TargetRequest = XStatic<typeof TARGET>;
export type PolicyState = XStatic<typeof POLICY_STATE>;
export type PolicyChange = XStatic<typeof POLICY_CHANGE>;
export type InhibitRequest = XStatic<typeof INHIBIT>;
export type ProblemDocument = XStatic<typeof PROBLEM>;
export type ReloadReport = XStatic<typeof RELOAD>;
export type DaemonEvent = XStatic<typeof EVENT>;
export type DaemonView = XStatic<typeof DAEMON>;
export type DaemonChange = XStatic<typeof DAEMON_CHANGE>;
