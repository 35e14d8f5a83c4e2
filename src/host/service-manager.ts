/** What can be told of the service manager that started a process. */
const RUN_TIMEOUT_MS = 5000;

/** The version of systemd on this host, such as 257; null: it is not there, or does not say. */
export function systemdVersion(): number | null {
  // Loaded by those alone who ask: a daemon that is held does not, and starts sooner.
  const { execFileSync } = process.getBuiltinModule('node:child_process');
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
