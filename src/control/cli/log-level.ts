/** `balloonctl log-level`: how much the daemon logs. */
import type { DaemonChange } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import type { DaemonSaid } from './daemon-notes.js';
import type { Output } from './output.js';

/** Null: shows it. */
export async function logLevel(
  client: ControlClient,
  output: Output,
  level: DaemonChange['logLevel'] | null,
): Promise<void> {
  const daemon = level === null ? await client.daemon() : await client.changeDaemon({ logLevel: level });
  const { logLevel: is = 'unknown: this daemon is too old to say it' } = daemon as DaemonSaid;
  if (output.json) output.document(daemon);
  else if (level === null) output.print(`the log level is ${is}`);
  else output.print(`the log level is ${is} until the daemon restarts or reads its configuration again`);
}
