/** An error on its way to a client as application/problem+json (RFC 9457). */
import { STATUS_CODES } from 'node:http';
import { RefusingError, type RefusalText } from '../../protocol/control/refusal.js';
import type { ProblemDocument } from '../../protocol/control/schema.js';

export class Problem extends RefusingError {
  override readonly name = 'Problem';

  constructor(
    readonly status: number,
    readonly detail: RefusalText,
    readonly headers: Readonly<Record<string, string>> = {},
    options?: ErrorOptions,
  ) {
    super(detail, options);
  }

  document(): ProblemDocument {
    return { title: STATUS_CODES[this.status] ?? 'Error', status: this.status, detail: this.detail };
  }
}
