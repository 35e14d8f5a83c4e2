/** The daemon itself as the control API shows and changes it. */
import { LOG_LEVELS } from './log-levels.js';
import { NULL } from './schema-words.js';

const LOG_LEVEL = {
  enum: LOG_LEVELS,
  description: 'The least level that the daemon logs.',
} as const;

export const DAEMON = {
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
    'problems',
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
    problems: {
      type: 'array',
      description: 'Parts of the daemon that do not do their work, for as long as that is so.',
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['part', 'text', 'remedy'],
        properties: {
          part: {
            enum: ['orders', 'metrics', 'policy', 'libvirt'],
            description:
              'orders: the orders for VMs are not written down. metrics: TCP has no metrics. policy: the VMs cannot give the reserve. libvirt: libvirt answers for no domain.',
          },
          text: { type: 'string' },
          remedy: { type: 'string', description: 'The next step.' },
        },
      },
    },
    control: { type: 'string', description: 'The path of this socket.' },
    logLevel: LOG_LEVEL,
  },
} as const;

export const DAEMON_CHANGE = {
  type: 'object',
  additionalProperties: false,
  required: ['logLevel'],
  properties: { logLevel: LOG_LEVEL },
} as const;

export const ADOPTED = {
  type: 'object',
  description: 'A QMP socket or a domain of libvirt whose VM is adopted, or is to be.',
  additionalProperties: false,
  required: ['path', 'by', 'vm', 'problem'],
  properties: {
    path: { type: 'string', description: 'The path of the socket; of a domain, `libvirt:NAME`.' },
    by: {
      enum: ['operator', 'configuration'],
      description: 'The one who adopted the VM; of one that an operator released, operator.',
    },
    vm: { type: ['string', 'null'], description: 'The VM that was adopted; null: none yet.' },
    problem: {
      type: ['string', 'null'],
      description: 'Why none was, and what to do next; null: nothing is wrong.',
    },
  },
} as const;

export const ADOPT_CHANGE = {
  type: 'object',
  additionalProperties: false,
  required: ['path', 'adopted'],
  properties: {
    path: { type: 'string', minLength: 1, maxLength: 136, pattern: '^[^\\x00-\\x1f\\x7f]*$' },
    adopted: {
      type: 'boolean',
      description: 'true: adopt the VM of the socket, or the domain; false: release the VM.',
    },
  },
} as const;

export const HEALTH = {
  type: 'object',
  additionalProperties: false,
  required: ['status', 'version'],
  properties: { status: { const: 'ok' }, version: { type: 'string' } },
} as const;

export const RELOAD = {
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
