/** Reads one JSON request body, never more than BODY_LIMIT_BYTES of it. */
import type { IncomingMessage } from 'node:http';
import { Check } from 'typebox/schema';
import {
  SCHEMAS,
  type InhibitRequest,
  type PolicyChange,
  type VmChange,
} from '../../protocol/control/schema.js';
import { OPERATIONS } from '../../protocol/control/operations.js';
import { Problem } from './problem.js';

export const BODY_LIMIT_BYTES = 64 * 1024;

/** A target, or limits. */
export async function readChange(request: IncomingMessage): Promise<VmChange> {
  const { hint } = OPERATIONS.setTarget.body;
  const body = parse(await readText(request), hint);
  if (!Check(SCHEMAS.VmChange, body)) {
    throw new Problem(400, `neither a balloon target nor limits: ${hint}`);
  }
  return body;
}

export async function readInhibit(request: IncomingMessage): Promise<InhibitRequest> {
  const { hint } = OPERATIONS.inhibit.body;
  const text = await readText(request);
  if (text === '') return {};
  const body = parse(text, hint);
  if (!Check(SCHEMAS.Inhibit, body)) throw new Problem(400, `not an inhibit request: ${hint}`);
  return body;
}

export async function readPolicyChange(request: IncomingMessage): Promise<PolicyChange> {
  const { hint } = OPERATIONS.changePolicy.body;
  const body = parse(await readText(request), hint);
  if (!Check(SCHEMAS.PolicyChange, body)) throw new Problem(400, `not a change of the policy: ${hint}`);
  return body;
}

function parse(text: string, hint: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Problem(400, `the request body is not JSON: ${hint}`);
  }
}

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let lenBytes = 0;
  // The answer still has to go out on this connection: leaving the loop early must not destroy it.
  const body = request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const chunk of body) {
    lenBytes += chunk.length;
    if (lenBytes > BODY_LIMIT_BYTES) {
      throw new Problem(413, `the request body is larger than ${BODY_LIMIT_BYTES} bytes: send less`, {
        connection: 'close',
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
