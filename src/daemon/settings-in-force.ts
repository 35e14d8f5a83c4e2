import { refusal, type RefusalText } from '../../protocol/control/refusal.js';
import type { LogLevel } from '../../protocol/control/log-levels.js';
import { defaultFormat, type LogFormat } from '../ops/log.js';
import { SystemError } from '../os/errors.js';
import type { KeptConfiguration } from './config/kept.js';
import { ConfigError } from './config/mistakes.js';
import { readConfiguration, withoutFiles, type Configuration } from './config/read.js';
import type { DaemonArguments } from './options.js';
import { configChanges, libvirtSettings, qmpPatterns, SettingsError, type ConfigFile } from './settings.js';
import { startRefusal } from './startup-failure.js';

type ConfigChanges = ReturnType<typeof configChanges>;

/** The settings that the daemon goes by, from its start over each reload. Flags win over files. */
export class SettingsInForce {
  /** The settings in force in place of those of the files, in words; null where the files had no mistake at the start. */
  readonly instead: string | null;
  readonly #args: DaemonArguments;
  readonly #kept: KeptConfiguration;
  #configuration: Configuration;
  #mistake: string | null = null;

  /**
   * Reads the files. A mistake in them is thrown (SettingsError), unless VMs of the daemon before this one wait: then the
   * settings of that daemon are in force.
   */
  constructor(args: DaemonArguments, kept: KeptConfiguration, vmsWait: boolean) {
    this.#args = args;
    this.#kept = kept;
    try {
      this.#configuration = wantedConfiguration(args);
      this.instead = null;
    } catch (error) {
      if (!vmsWait || !(error instanceof SettingsError)) throw error;
      const before = kept.read();
      const which = before === null ? 'the default settings' : 'the settings of the daemon before it';
      this.#configuration = before ?? withoutFiles(args);
      this.#mistake = inALine(error);
      this.instead = `this daemon serves the VMs that wait, with ${which}`;
    }
  }

  get configuration(): Configuration {
    return this.#configuration;
  }

  /** The first mistake of the files, as they were when they were last read, in a line; null: the files are in force. */
  get mistake(): string | null {
    return this.#mistake;
  }

  get logLevel(): LogLevel {
    return this.#args.logLevel ?? this.#configuration.config['log-level'] ?? 'info';
  }

  get logFormat(): LogFormat {
    return this.#args.logFormat ?? this.#configuration.config['log-format'] ?? defaultFormat();
  }

  /**
   * Reads all files again, and returns the changes. `take` puts the new settings in force. Throws SettingsError or
   * SystemError with the mistake in a line; then nothing has changed.
   */
  reread(take: (next: Configuration) => void): ConfigChanges {
    const before = this.#configuration;
    try {
      const next = this.#next();
      take(next);
      this.#configuration = next;
      this.#mistake = null;
      return this.#between(before, next);
    } catch (error) {
      if (error instanceof SettingsError || error instanceof SystemError) this.#mistake = inALine(error);
      throw error;
    }
  }

  /** The changes that reread() would make. Throws SettingsError or SystemError. */
  changes(): { file: string; files: string[]; changes: ConfigChanges } {
    const next = this.#next();
    const changes = this.#between(this.#configuration, next);
    return { file: next.file, files: [...next.files], changes };
  }

  /** The settings of the files as they are now. */
  #next(): Configuration {
    const next = wantedConfiguration(this.#args);
    if (next.files.length > 0 || this.#configuration.files.length > 0) return next;
    throw new SettingsError(
      refusal(
        'there is no configuration file to read again',
        `create ${next.file}, or start balloond with --config FILE`,
      ),
    );
  }

  #between(before: Configuration, next: Configuration): ConfigChanges {
    return configChanges(ofFiles(this.#args, before), ofFiles(this.#args, next));
  }

  /** Keeps what is in force for the daemon after this one. Throws SystemError. */
  keep(): void {
    this.#kept.write(this.#configuration);
  }
}

/** Throws SettingsError, also where there is nothing to serve. */
function wantedConfiguration(args: DaemonArguments): Configuration {
  const configuration = readConfiguration(args);
  const { sockets, config } = configuration;
  const adopts = qmpPatterns(config).length > 0 || libvirtSettings(config) !== null;
  if (sockets.length > 0 || args.fd !== undefined || adopts) return configuration;
  throw new SettingsError(
    refusal(
      'there is nothing to serve',
      `give --socket-path PATH or --fd N, or add a [[socket]], [[qmp]] or [libvirt] to ${configuration.file}`,
    ),
  );
}

/** Why settings cannot be in force: the first mistake, and how many more there are. */
export function inALine(error: SettingsError | SystemError): RefusalText {
  return error instanceof ConfigError ? error.brief : startRefusal(error);
}

/** The settings of the files, without those that flags win over. */
function ofFiles(args: DaemonArguments, { config }: Configuration): ConfigFile {
  const flags: Partial<Record<keyof ConfigFile, boolean>> = {
    control: args.control !== undefined,
    metrics: args.metrics !== undefined,
    'log-level': args.logLevel !== undefined,
    'log-format': args.logFormat !== undefined,
    socket: args.socketPath !== undefined || args.cacheSocketPath !== undefined,
  };
  const keys = Object.keys(config) as (keyof ConfigFile)[];
  return Object.fromEntries(keys.filter((key) => flags[key] !== true).map((key) => [key, config[key]]));
}
