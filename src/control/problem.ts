/** An error on its way to a client as application/problem+json (RFC 9457). */
import { STATUS_CODES } from 'node:http';
import type { ProblemDocument } from '../../protocol/control/schema.js';

export class Problem extends Error {
  override readonly name = 'Problem';

  /** `detail` is a sentence that says what to do. */
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly headers: Readonly<Record<string, string>> = {},
    options?: ErrorOptions,
  ) {
    super(detail, options);
  }

  document(): ProblemDocument {
    return { title: STATUS_CODES[this.status] ?? 'Error', status: this.status, detail: this.detail };
  }
}
