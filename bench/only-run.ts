import { once } from 'node:events';
import { createServer } from 'node:net';

/** Nobody else's file, and gone with this process however that ends. */
const NAME = '\0balloond-bench-host-settings';

/**
 * Holds the host's settings for this process until the returned call: two runs at once would take each other's
 * settings for the host's own and leave them behind, and their figures would be worth nothing.
 */
export async function onlyRun(): Promise<() => void> {
  const server = createServer();
  try {
    await once(server.listen(NAME), 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    throw new Error('another benchmark is using the settings of this host: try again when it has ended');
  }
  return () => server.close();
}
