/** What can be told of the service manager that started a process. */
import { execFileSync } from 'node:child_process';

const RUN_TIMEOUT_MS = 5000;

/** The version of systemd on this host, such as 257; null: it is not there, or does not say. */
export function systemdVersion(): number | null {
  try {
    const said = execFileSync('systemctl', ['--version'], {
      encoding: 'utf8',
      timeout: RUN_TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [, version] = /^systemd (\d+)/.exec(said) ?? [];
    return version === undefined ? null : Number(version);
  } catch {
    return null;
  }
}
