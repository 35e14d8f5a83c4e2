/** Datagrams of systemd's notification protocol (sd_notify(3)): assignments, one a line. */
export type Notification = Readonly<Record<string, string | number>>;

export function encodeNotification(assignments: Notification): string {
  return Object.entries(assignments)
    .map(([name, value]) => `${name}=${String(value).replaceAll('\n', ' ')}\n`)
    .join('');
}

/** A file descriptor that the service manager passed, and its name (sd_listen_fds_with_names(3)). */
export interface PassedFd {
  fd: number;
  name: string;
}

const FIRST_PASSED_FD = 3;

/** What LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES say to the process `pid`. */
export function passedFds(
  environment: Readonly<Record<string, string | undefined>>,
  pid: number,
): PassedFd[] {
  if (environment['LISTEN_PID'] !== String(pid)) return [];
  const count = Number(environment['LISTEN_FDS'] ?? 0);
  const names = (environment['LISTEN_FDNAMES'] ?? '').split(':');
  return Array.from({ length: Number.isSafeInteger(count) && count > 0 ? count : 0 }, (_, index) => ({
    fd: FIRST_PASSED_FD + index,
    name: names[index] ?? 'unknown',
  }));
}

/** The assignments of a datagram, by their names. */
export function decodeNotification(text: string): Map<string, string> {
  const lines = text.split('\n').filter((line) => line.includes('='));
  return new Map(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}
