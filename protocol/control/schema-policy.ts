/** The policy as the control API shows and changes it. */
import { ORDER } from './schema-order.js';
import { BYTES, NULL } from './schema-words.js';

export const POLICY = {
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

/** A pool of huge pages that VMs share. */
export const POOL_STATE = {
  type: 'object',
  additionalProperties: false,
  required: ['pageBytes', 'totalBytes', 'availableBytes', 'reserveBytes', 'short'],
  properties: {
    pageBytes: { ...BYTES, description: 'The size of the pages of the pool.' },
    totalBytes: { ...BYTES, description: 'The pages that are reserved for the pool.' },
    availableBytes: { ...BYTES, description: 'The pages that no program has and none was promised.' },
    reserveBytes: BYTES,
    short: { type: 'boolean', description: 'Whether the pool has less available than its reserve.' },
  },
} as const;

/** What the policy sees and last decided. */
export const POLICY_STATE = {
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
            part: {
              type: 'boolean',
              description:
                'Whether these are figures of the part of the host that VMs may have, and not of all of it. Earlier builds leave this out.',
            },
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
    pools: {
      type: 'array',
      items: POOL_STATE,
      description:
        'The pools of huge pages that VMs share by share-pools in [policy], the smallest pages first. Earlier builds leave this out.',
    },
    bands: { type: 'array', items: { type: 'string' }, description: 'Highest first.' },
    orders: {
      type: 'array',
      items: ORDER,
      description:
        'The orders for all VMs: the mode that an operator set, and the pause, while there is one.',
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

export const POLICY_CHANGE = {
  anyOf: [
    {
      type: 'object',
      additionalProperties: false,
      required: ['paused'],
      properties: {
        paused: {
          type: 'boolean',
          description: 'true: the policy does nothing; false: the policy acts again.',
        },
        vm: {
          type: 'string',
          minLength: 1,
          description: 'The VM to pause or resume; without it, the whole policy.',
        },
      },
    },
    {
      type: 'object',
      additionalProperties: false,
      required: ['mode'],
      properties: {
        mode: {
          anyOf: [{ enum: ['observe', 'auto', 'off'] }, NULL],
          description:
            'The mode until another one is set, also over restarts; null: the mode of the configuration.',
        },
      },
    },
  ],
} as const;

/** An action of the policy that is not taken. */
export const POLICY_ADVICE = {
  type: 'array',
  items: {
    type: 'object',
    additionalProperties: false,
    required: ['vm', 'action', 'fromBytes', 'toBytes', 'cause', 'says'],
    properties: {
      vm: { type: 'string' },
      action: { enum: ['target', 'cache-limit', 'limit', 'kill'] },
      fromBytes: { anyOf: [BYTES, NULL], description: 'The target now; null: the action sets none.' },
      toBytes: { anyOf: [BYTES, NULL], description: 'The target then; null: the action sets none.' },
      cause: { type: 'string', description: 'The cause, as in metrics.' },
      says: { type: 'string', description: 'The action and its reason in words.' },
    },
  },
} as const;
