// A daemon of root leaves its socket in the folder of the user that runs the service.
import { chmodSync, chownSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { listenUnix } from '../../src/os/socket.js';
import { temporaryFolder } from '../support/fleet.js';

/** Of a service, and of a person. */
const USER = 999;
const PERSON = 1000;

void t.test(
  'a socket that root left behind is replaced by the owner of its folder',
  { skip: process.getuid?.() === 0 ? false : 'needs root' },
  (t) => {
    const folder = temporaryFolder(t);
    chownSync(folder, USER, USER);
    const path = join(folder, 'control.sock');
    closeFd(listenUnix(path, 0o660));
    const { uid, gid } = statSync(path);
    t.same([uid, gid], [USER, USER]);
    const asUser = <T>(work: () => T): T => {
      process.seteuid?.(USER);
      try {
        return work();
      } finally {
        process.seteuid?.(0);
      }
    };
    closeFd(asUser(() => listenUnix(path, 0o660)));
    chownSync(folder, PERSON, PERSON);
    closeFd(listenUnix(join(folder, 'other.sock')));
    t.equal(statSync(join(folder, 'other.sock')).uid, 0, 'a person may not command what root runs');
    chownSync(folder, USER, USER);
    chownSync(path, 0, 0);
    chmodSync(path, 0o600);
    t.throws(() => asUser(() => listenUnix(path)), { code: 'EADDRINUSE', standing: 'foreign' });
    t.end();
  },
);
