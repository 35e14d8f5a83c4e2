import { drainEvent, EventWatch, signalEvent } from '../src/os/eventfd.js';
import { Mapping } from '../src/os/mapping.js';
import { PAGE_BYTES } from '../test/support/guest-ram.js';

/**
 * Answers each kick at once, in a process of its own: what is left of a daemon that has nothing to do. `spins` looks at
 * the kick eventfd without a pause, `sleeps` waits on Node's event loop, as balloond does.
 */
const [KICK_FD, CALL_FD, MEMORY_FD] = [4, 5, 6];
const word = new Int32Array(Mapping.map(MEMORY_FD, 0, PAGE_BYTES).view(0, 4));

function answer(): void {
  Atomics.add(word, 0, 1);
  signalEvent(CALL_FD);
}

if (process.argv[2] === 'sleeps') new EventWatch(KICK_FD, answer);
else for (;;) if (drainEvent(KICK_FD) > 0) answer();
