/**
 * The configuration: from files and flags to settings that are checked. SettingsInForce (start and reload) and --check-config
 * call read (this file), the one way, which calls, in this order: sources (the files), merge (one document of several), shape
 * (keys and types), rules (what a shape cannot say), and gathers all mistakes. kept has the configuration of the daemon
 * before this one. words explains each key, for json-schema, the example file and the manual page.
 */
import { refusal, type RefusalText } from '../../../protocol/control/refusal.js';
import { DEFAULT_CONFIG_PATH, DEFAULT_CONTROL_PATH } from '../options.js';
import { ADDRESS_FORM, ConfigFile, readAddress, type SocketSettings } from '../settings.js';
import { mergeSources } from './merge.js';
import { ConfigError, type ConfigMistake } from './mistakes.js';
import { documentMistakes, pathMistakes, type WantedPath } from './rules.js';
import { compareShape, type Schema } from './shape.js';
import { readSources } from './sources.js';

/** The flags that have a say in what the configuration means. Flags win over files. */
interface ConfigFlags {
  readonly config?: string | undefined;
  readonly control?: string | undefined;
  readonly metrics?: string | undefined;
  readonly socketPath?: string | undefined;
  readonly cacheSocketPath?: string | undefined;
}

export interface Configuration {
  readonly config: ConfigFile;
  /** The file that was named, or that is read by default. */
  readonly file: string;
  /** All files that were read, in their order; none where the default file and its folder do not exist. */
  readonly files: readonly string[];
  readonly controlPath: string;
  /** HOST:PORT to serve metrics on, or null. */
  readonly metrics: string | null;
  /** The sockets to make: those of flags, or else of the files. */
  readonly sockets: readonly SocketSettings[];
}

export const CONFIG_SCHEMA = JSON.parse(JSON.stringify(ConfigFile)) as Schema;

/** Reads the files, and checks all that shows before the daemon starts. Throws ConfigError with every mistake. */
export function readConfiguration(flags: ConfigFlags): Configuration {
  const { config, files, mistakes, placed } = readFiles(flags.config);
  const { controlPath, sockets, wanted } = wantedPaths(flags, config);
  // A path that is wrong already is not replaced by the default, which nobody asked for.
  const usable = mistakes.some(({ key }) => key === 'control') ? wanted.slice(1) : wanted;
  for (const { where, what } of pathMistakes(usable)) mistakes.push(placed(where, what));
  if (flags.metrics !== undefined && readAddress(flags.metrics) === null) {
    mistakes.push(placed(['--metrics'], refusal('is no address', ADDRESS_FORM)));
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  const metrics = flags.metrics ?? config.metrics ?? null;
  return { config, file: flags.config ?? DEFAULT_CONFIG_PATH, files, controlPath, metrics, sockets };
}

/** The configuration of a machine without files. */
export function withoutFiles(flags: ConfigFlags): Configuration {
  const { controlPath, sockets } = wantedPaths(flags, {});
  return {
    config: {},
    file: flags.config ?? DEFAULT_CONFIG_PATH,
    files: [],
    controlPath,
    metrics: null,
    sockets,
  };
}

/** The same of one file and its drop-ins, whichever machine it is for. Throws ConfigError. */
export function readConfigFile(path: string): ConfigFile {
  const { config, mistakes } = readFiles(path);
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return config;
}

interface ReadFiles {
  readonly config: ConfigFile;
  readonly files: readonly string[];
  readonly mistakes: ConfigMistake[];
  readonly placed: (where: readonly string[], what: RefusalText) => ConfigMistake;
}

function readFiles(path: string | undefined): ReadFiles {
  const { sources, mistakes: unread } = readSources(path);
  const mistakes = [...unread];
  // Each file for itself first, so that a mistake is found where it was written.
  const documents = sources.map((source) => {
    const report = compareShape(CONFIG_SCHEMA, source.document);
    const alone = mergeSources([source], [source.document]);
    for (const { where, what } of report.mistakes) {
      const at = alone.placeOf(where);
      mistakes.push({ file: source.path, place: at?.place ?? null, key: where.join('.'), what });
    }
    return report.rest as ConfigFile;
  });
  const merged = mergeSources(sources, documents);
  // Without what is wrong in it: what the rules look at is as the schema has it.
  const config = merged.document as ConfigFile;
  const placed = (where: readonly string[], what: RefusalText): ConfigMistake => {
    const at = where[0]?.startsWith('--') === true ? null : merged.placeOf(where);
    return { file: at?.file ?? null, place: at?.place ?? null, key: where.join('.'), what };
  };
  for (const { where, what } of documentMistakes(whole(config))) mistakes.push(placed(where, what));
  return { config, files: sources.map((source) => source.path), mistakes, placed };
}

/** Entries that lost what they cannot do without have no say in the rules. */
function whole(config: ConfigFile): ConfigFile {
  const bands = config.policy?.band;
  if (bands === undefined) return config;
  const named = bands.map((band, n) => ({ ...band, name: (band.name as string | undefined) ?? `band ${n}` }));
  return { ...config, policy: { ...config.policy, band: named } };
}

function wantedPaths(
  flags: ConfigFlags,
  config: ConfigFile,
): { controlPath: string; sockets: readonly SocketSettings[]; wanted: WantedPath[] } {
  const controlPath = flags.control ?? config.control ?? DEFAULT_CONTROL_PATH;
  const control: WantedPath = {
    path: controlPath,
    where: flags.control !== undefined || config.control === undefined ? ['--control'] : ['control'],
  };
  const named: { socket: SocketSettings; where: string[] }[] = [];
  if (flags.socketPath !== undefined) {
    named.push({ socket: { path: flags.socketPath }, where: ['--socket-path'] });
  }
  if (flags.cacheSocketPath !== undefined) {
    const socket = { path: flags.cacheSocketPath, device: 'cache-balloon' } as const;
    named.push({ socket, where: ['--cache-socket-path'] });
  }
  const own = (config.socket ?? []).map((socket, n) => ({ socket, where: ['socket', String(n), 'path'] }));
  const sockets = named.length > 0 ? named : own;
  return {
    controlPath,
    sockets: sockets.map(({ socket }) => socket),
    wanted: [
      control,
      ...sockets.flatMap(({ socket, where }) =>
        (socket.path as string | undefined) === undefined ? [] : [{ path: socket.path, where }],
      ),
    ],
  };
}
