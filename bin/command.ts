/** A command of balloonctl, as the tables of commands have it. */
import type { CommandSpec, OptionValues } from '../src/control/cli/command-line.js';
import type { Output } from '../src/control/cli/output.js';
import type { ControlClient } from '../src/control/client.js';

/** What a command gets. */
export interface Call {
  /** The first operand, where the table names one. */
  vm: string;
  /** The next one, where it may be left out. */
  second: string | null;
  values: OptionValues;
  output: Output;
  /** Connects to the daemon. */
  client: () => Promise<ControlClient>;
}

export interface Command extends CommandSpec {
  /** Whether requests wait for a daemon that is started again; false: the command has its own way to wait. */
  waits?: false;
  run(call: Call): Promise<void>;
}
