import type { Fuzzer } from './fuzzer.js';
import { RingFuzzer } from './ring-fuzzer.js';
import { StateFuzzer } from './state-fuzzer.js';
import { SessionFuzzer } from './session-fuzzer.js';

/** All that run in this process, by name. */
export const FUZZERS: Readonly<Record<string, () => Fuzzer>> = {
  session: () => new SessionFuzzer(),
  ring: () => new RingFuzzer(),
  state: () => new StateFuzzer(),
};
