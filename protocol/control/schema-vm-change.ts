/** What a request may change of a VM. */
import { byName, LIMIT_NAMES, LIMITS } from './limits.js';
import { BYTES } from './schema-words.js';

const FORCE = {
  type: 'boolean',
  description: 'true: also where the guest would keep less than any guest is known to live in.',
} as const;

export const TARGET = {
  anyOf: [
    {
      type: 'object',
      additionalProperties: false,
      required: ['memoryBytes'],
      properties: { memoryBytes: { ...BYTES, description: 'Memory that the guest keeps.' }, force: FORCE },
    },
    {
      type: 'object',
      additionalProperties: false,
      required: ['balloonBytes'],
      properties: {
        balloonBytes: { ...BYTES, description: 'Memory that the guest gives up.' },
        force: FORCE,
      },
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

export const LIMIT_WORD = {
  anyOf: [BYTES, { enum: ['max', 'follow', 'restore'] }],
  description:
    'Bytes; max: no limit; follow: a limit above the memory that the guest may use; restore: the limit that the daemon found.',
} as const;

export const LIMIT_REQUEST = {
  type: 'object',
  description: `Limits of the cgroup of the VM, one or more: ${LIMIT_NAMES.map((name) => LIMITS[name].file).join(', ')}.`,
  additionalProperties: false,
  minProperties: 1,
  properties: byName(() => LIMIT_WORD),
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

export const VM_CHANGE = {
  description:
    'Exactly one of: the memory that the guest keeps, the memory that it gives up, the limit of its page cache balloon, the limits of its cgroup, the interval of its statistics.',
  anyOf: [...TARGET.anyOf, LIMITS_BODY, STATS_INTERVAL_BODY],
} as const;

export const INHIBIT = {
  type: 'object',
  additionalProperties: false,
  properties: {
    reason: { type: 'string', minLength: 1, maxLength: 200, pattern: '^[^\\x00-\\x1f\\x7f]*$' },
  },
} as const;
