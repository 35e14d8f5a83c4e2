import { encodeNotification, type Notification } from '../../protocol/systemd.js';
import { sendDatagram } from './datagram.js';

/** Tells the service manager, where there is one (NOTIFY_SOCKET), how the daemon does. False: it was not told. */
export function notify(
  assignments: Notification,
  socket: string | undefined = process.env['NOTIFY_SOCKET'],
): boolean {
  if (socket === undefined || socket === '') return false;
  try {
    return sendDatagram(socket, encodeNotification(assignments));
  } catch {
    // The native helper is missing or does not load: the service manager will say that it waits in vain.
    return false;
  }
}
