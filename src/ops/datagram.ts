import { createRequire } from 'node:module';

interface DatagramSocket {
  send(message: Buffer, offset: number, length: number, path: string, done: (error?: Error) => void): void;
  close(): void;
  on(event: 'error', listener: (error: Error) => void): void;
}

/** sun_path, less its final NUL; unix-dgram silently cuts what is longer. */
const MAX_PATH_BYTES = 107;

/**
 * Sends one datagram to a Unix socket with a path. unix-dgram ends the process for arguments it does not expect,
 * so they are checked here; abstract names (a leading @) are beyond it. Resolves false when nothing was sent.
 */
export function sendDatagram(path: string, text: string): Promise<boolean> {
  if (!path.startsWith('/') || Buffer.byteLength(path) > MAX_PATH_BYTES) return Promise.resolve(false);
  const message = Buffer.from(text);
  // Loaded on use: most daemons run without systemd, or on a Node this addon was not built for.
  const { createSocket } = createRequire(import.meta.url)('unix-dgram') as {
    createSocket: (type: 'unix_dgram') => DatagramSocket;
  };
  const socket = createSocket('unix_dgram');
  return new Promise((resolve) => {
    let open = true;
    const finish = (sent: boolean): void => {
      if (!open) return;
      open = false;
      socket.close();
      resolve(sent);
    };
    socket.on('error', () => finish(false));
    socket.send(message, 0, message.length, path, (error) => finish(error === undefined));
  });
}
