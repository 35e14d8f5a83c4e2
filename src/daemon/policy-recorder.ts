import { createWriteStream, type WriteStream } from 'node:fs';
import type { TraceLine } from '../../protocol/policy-trace.js';

/** What may wait for a slow disk; what comes beyond that is left out. */
const BACKLOG_LIMIT_BYTES = 4 * 2 ** 20;

/** Appends what the policy saw at each tick to a file, for the simulator. */
export class PolicyRecorder {
  readonly #stream: WriteStream;

  constructor(path: string, failed: (reason: string) => void) {
    this.#stream = createWriteStream(path, { flags: 'a', mode: 0o640 });
    this.#stream.on('error', (error) => failed(error.message));
  }

  write(line: TraceLine): void {
    if (this.#stream.destroyed || this.#stream.writableLength > BACKLOG_LIMIT_BYTES) return;
    this.#stream.write(`${JSON.stringify(line)}\n`);
  }

  close(): void {
    this.#stream.end();
  }
}
