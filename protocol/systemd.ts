/** Datagrams of systemd's notification protocol (sd_notify(3)): assignments, one a line. */
export type Notification = Readonly<Record<string, string | number>>;

export function encodeNotification(assignments: Notification): string {
  return Object.entries(assignments)
    .map(([name, value]) => `${name}=${String(value).replaceAll('\n', ' ')}\n`)
    .join('');
}
