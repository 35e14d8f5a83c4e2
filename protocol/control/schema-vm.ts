/** A VM as the control API shows it. */
import { DIAGNOSIS_CODES } from './diagnosis.js';
import { byField, byName, LIMIT_NAMES, LIMITS, type LimitField, type LimitName } from './limits.js';
import { ORDER } from './schema-order.js';
import { POLICY } from './schema-policy.js';
import { BYTES, NULL } from './schema-words.js';

const NOT_COUNTED =
  'null: QEMU serves this balloon itself, and does not say, or it is counted with the balloon whose device this balloon is a part of.';
const COUNTED = { anyOf: [BYTES, NULL], description: `Since the device connected; ${NOT_COUNTED}` } as const;

export const BALLOON = {
  type: 'object',
  additionalProperties: false,
  required: [
    'targetBytes',
    'actualBytes',
    'actualUnknown',
    'pendingBytes',
    'refilledBytes',
    'pinnedBytes',
    'discardedBytesTotal',
    'inflatedBytesTotal',
    'deflatedBytesTotal',
    'reportedBytesTotal',
    'discardSecondsTotal',
  ],
  properties: {
    targetBytes: { ...BYTES, description: 'Memory that the guest is asked to give up.' },
    actualBytes: { ...BYTES, description: 'Memory that the guest has given up.' },
    actualUnknown: {
      type: 'boolean',
      description:
        'The guest has not said yet how much that is, and actualBytes is the part that the daemon saw given up: the VMM connected with a driver that ran before.',
    },
    pendingBytes: {
      ...BYTES,
      description: 'Memory that the guest has given up and the host has not discarded yet.',
    },
    refilledBytes: {
      anyOf: [BYTES, NULL],
      description:
        'Memory in the balloon that owes no discard and is on the host all the same, because a program on the host touched it; null: not known.',
    },
    pinnedBytes: {
      anyOf: [BYTES, NULL],
      description:
        'Memory in the balloon that is on the host although it was discarded once more, because something pins its huge pages; null: not known.',
    },
    discardedBytesTotal: COUNTED,
    inflatedBytesTotal: COUNTED,
    deflatedBytesTotal: COUNTED,
    reportedBytesTotal: { ...COUNTED, description: `Free memory that the guest reported; ${NOT_COUNTED}` },
    discardSecondsTotal: {
      anyOf: [{ type: 'number', minimum: 0 }, NULL],
      description: `CPU time of the system calls that discard; ${NOT_COUNTED}`,
    },
  },
} as const;

export const STATS = {
  type: 'object',
  description: 'Guest statistics by their virtio names, in bytes or counts; an unknown tag is `tag-N`.',
  required: ['ageSeconds'],
  properties: {
    ageSeconds: { type: 'number', minimum: 0, description: 'Time since the guest sent the statistics.' },
  },
  additionalProperties: { type: 'number' },
} as const;

// The casts are for inference only, which reads the element types of tuples.
const FIELDS = LIMIT_NAMES.map((name) => LIMITS[name].field) as unknown as readonly [LimitField];
const NAMES = LIMIT_NAMES as unknown as readonly [LimitName];

const CGROUP = {
  type: 'object',
  additionalProperties: false,
  required: ['path', 'currentBytes', ...FIELDS],
  properties: {
    path: { type: 'string' },
    currentBytes: BYTES,
    ...byField(() => ({ anyOf: [BYTES, NULL], description: 'null: no limit.' }) as const),
  },
} as const;

export const DIAGNOSIS = {
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

const VM_LIMITS = {
  type: 'object',
  additionalProperties: false,
  required: [...NAMES, 'mayUseBytes', 'problem', 'diagnosis'],
  properties: {
    ...byName(() => LIMIT),
    mayUseBytes: { ...BYTES, description: 'Memory that the guest may have in use now.' },
    problem: {
      type: ['string', 'null'],
      description: 'The reason why the limits that an operator asked for do not hold; null: none.',
    },
    diagnosis: { anyOf: [DIAGNOSIS, NULL], description: 'The same reason for programs; null: none.' },
  },
} as const;

/** Three sizes, none of which follows from another. */
const MEMORY = {
  type: 'object',
  additionalProperties: false,
  required: ['sharedBytes', 'discardableBytes', 'ramBytes', 'allocatedBytes'],
  properties: {
    sharedBytes: {
      ...BYTES,
      description:
        'All regions that the VMM shares; also of devices, such as all that a virtio-mem device could plug.',
    },
    discardableBytes: {
      ...BYTES,
      description: 'The part of them that can go back to the host: not files on disk.',
    },
    ramBytes: { ...BYTES, description: 'The same as ramBytes of the VM.' },
    allocatedBytes: {
      ...BYTES,
      description: 'The memory that the files of the regions take up on the host now.',
    },
  },
} as const;

const QUEUES = {
  type: 'object',
  additionalProperties: false,
  required: ['present', 'needed'],
  properties: {
    present: { type: 'integer', minimum: 0 },
    needed: { type: 'integer', minimum: 0 },
  },
} as const;

export const VM = {
  type: 'object',
  additionalProperties: false,
  required: [
    'name',
    'pid',
    'kind',
    'socket',
    'state',
    'ramBytes',
    'memory',
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
    kind: {
      enum: ['vhost-user', 'qmp', 'libvirt'],
      description:
        'The protocol between the daemon and the VMM. vhost-user: the daemon serves the balloon. qmp, libvirt: QEMU serves its own balloon, and the daemon moves it, over QMP or through libvirt.',
    },
    socket: {
      type: ['string', 'null'],
      description: 'The path of the socket of that protocol; null: it is not known.',
    },
    state: {
      enum: ['connected', 'running', 'stopped'],
      description: 'connected: the guest driver has not started yet.',
    },
    ramBytes: {
      ...BYTES,
      description: 'The memory that the guest has, its balloon included; 0: it is not known yet.',
    },
    memory: MEMORY,
    balloon: BALLOON,
    cache: { anyOf: [BALLOON, NULL], description: 'The page cache balloon, if the VM has one.' },
    queuesLacking: {
      anyOf: [QUEUES, NULL],
      description:
        'The virtqueues that the VMM has, too few for a page cache balloon on the device of the traditional one, and the virtqueues that such a device needs; null: there are enough, or the daemon does not know.',
    },
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
    limits: VM_LIMITS,
    policy: { anyOf: [POLICY, NULL] },
    orders: { type: 'array', items: ORDER, description: 'The orders that hold for this VM.' },
    statsIntervalSeconds: {
      type: 'number',
      minimum: 0,
      description: 'How often the guest is asked for statistics; 0: never.',
    },
  },
} as const;
