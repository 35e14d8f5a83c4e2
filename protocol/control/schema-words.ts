/** What the schemas of several documents have in common. */

export const BYTES = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const;

export const NULL = { type: 'null' } as const;
