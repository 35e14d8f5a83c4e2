/** An order of an operator, as the control API shows it. */
import { LIMIT_NAMES, type LimitName } from './limits.js';
import { NULL } from './schema-words.js';

// The cast is for inference only, which reads the element types of tuples.
const OF_LIMITS = LIMIT_NAMES.map((name) => `limit-${name}`) as unknown as readonly [`limit-${LimitName}`];

export const ORDER = {
  type: 'object',
  description:
    'An order that holds until it is taken back: for a VM by its name, or of the policy for all VMs.',
  additionalProperties: false,
  required: ['order', 'says', 'by', 'since', 'undo'],
  properties: {
    order: { enum: ['inhibit', 'target', 'cache-limit', ...OF_LIMITS, 'policy', 'policy-mode', 'released'] },
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

export const VM_ORDERS = {
  type: 'object',
  description: 'The orders that hold for a VM of this name.',
  additionalProperties: false,
  required: ['vm', 'connected', 'orders'],
  properties: {
    vm: { type: 'string' },
    connected: {
      type: 'boolean',
      description: 'Whether there is such a VM now; the orders of an operator wait for one.',
    },
    orders: { type: 'array', items: ORDER },
  },
} as const;
