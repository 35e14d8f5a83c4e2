/** Reads one JSON request body, never more than BODY_LIMIT_BYTES of it. */
import { refusal, type NextStep } from '../../protocol/control/refusal.js';
import type { IncomingMessage } from 'node:http';
import {
  SCHEMAS,
  type AdoptChange,
  type DaemonChange,
  type InhibitRequest,
  type PolicyChange,
  type VmChange,
} from '../../protocol/control/schema.js';
import { OPERATIONS } from '../../protocol/control/operations.js';
import { bodyFault, type Schema } from './body-fault.js';
import { Problem } from './problem.js';

export const BODY_LIMIT_BYTES = 64 * 1024;

/** A target, limits, or an interval of statistics. */
export async function readChange(request: IncomingMessage): Promise<VmChange> {
  const { hint } = OPERATIONS.setTarget.body;
  return checked(SCHEMAS.VmChange, parse(await readText(request), hint), hint) as VmChange;
}

export async function readInhibit(request: IncomingMessage): Promise<InhibitRequest> {
  const { hint } = OPERATIONS.inhibit.body;
  const text = await readText(request);
  return text === '' ? {} : (checked(SCHEMAS.Inhibit, parse(text, hint), hint) as InhibitRequest);
}

export async function readPolicyChange(request: IncomingMessage): Promise<PolicyChange> {
  const { hint } = OPERATIONS.changePolicy.body;
  return checked(SCHEMAS.PolicyChange, parse(await readText(request), hint), hint) as PolicyChange;
}

export async function readAdoptChange(request: IncomingMessage): Promise<AdoptChange> {
  const { hint } = OPERATIONS.changeAdopted.body;
  return checked(SCHEMAS.AdoptChange, parse(await readText(request), hint), hint) as AdoptChange;
}

function checked(schema: Schema, document: unknown, hint: NextStep): unknown {
  const fault = bodyFault(schema, document, hint);
  if (fault !== null) throw new Problem(400, fault);
  return document;
}

export async function readDaemonChange(request: IncomingMessage): Promise<DaemonChange> {
  const { hint } = OPERATIONS.changeDaemon.body;
  return checked(SCHEMAS.DaemonChange, parse(await readText(request), hint), hint) as DaemonChange;
}

function parse(text: string, hint: NextStep): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Problem(400, refusal('the request body is not JSON', hint));
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
      throw new Problem(
        413,
        refusal(`the request body is larger than ${BODY_LIMIT_BYTES} bytes`, 'send less'),
        {
          connection: 'close',
        },
      );
    }
    chunks.push(chunk);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw new Problem(400, refusal('the request body is not UTF-8', 'send JSON in UTF-8'));
  }
}
