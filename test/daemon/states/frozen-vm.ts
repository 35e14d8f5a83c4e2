import { join } from 'node:path';

/** Where they are kept. */
export const STATES = join(import.meta.dirname, '../../../../test/daemon/states');

/**
 * What a daemon left of a VM that its guest used, file by file under the names they were kept by; contents are base64
 * of Brotli.
 */
export interface FrozenVm {
  /** Of the record. */
  version: number;
  connection: string;
  channel: string | null;
  state: string;
  stateOffset: number;
  memory: { fd: string; bytes: string }[];
  eventFds: string[];
  features: string[];
  before: {
    targetBytes: number;
    actualBytes: number;
    inflatedBytesTotal: number;
    deflatedBytesTotal: number;
    discardedBytesTotal: number;
  };
  /** What waits in the rings, unkicked. */
  offered: { inflateBytes: number; deflateBytes: number; givenPfn: number; keptPfn: number };
}
