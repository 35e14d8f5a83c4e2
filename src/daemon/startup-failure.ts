import { refusal, type NextStep, type RefusalText } from '../../protocol/control/refusal.js';
import { PathTakenError, SystemError, type Standing } from '../os/errors.js';
import { SettingsError } from './settings.js';

const REMEDIES: Readonly<Record<string, NextStep>> = {
  EACCES: 'run as a user who may write there',
  EPERM: 'run as a user who may write there',
  EBADF: 'give the number of an open socket',
  ENAMETOOLONG: 'give a path of at most 107 bytes',
  EMFILE: 'let it have more files open (LimitNOFILE= in its unit, ulimit -n)',
  ENOENT: 'create its folder first',
  ENOTDIR: 'give a path whose folder is one',
  EROFS: 'give a path that can be written to',
  ENOTSOCK: 'give the number of a Unix stream socket',
};

/** By what is at a path that cannot be listened on. */
const TAKEN_REMEDIES: Readonly<Record<Standing, NextStep>> = {
  socket: 'stop the process that listens there (another balloond?), or give another path',
  foreign:
    'a socket of another user is there, stop the balloond that listens there as that user, or remove the file where none does',
  folder: 'a folder is there, give the path of a file in it',
  file: 'a file is there, move it away, or give another path',
  link: 'a symbolic link that leads nowhere is there, move it away, or give another path',
  nothing: 'try again, since the file that was there is gone',
  hidden: 'give a path in a folder that balloond may look into',
};

/** One line for each mistake: why the daemon could not start, and what to do. */
export function startRefusal(error: SettingsError | SystemError): RefusalText {
  if (error instanceof SettingsError) return error.message;
  const step = error instanceof PathTakenError ? TAKEN_REMEDIES[error.standing] : REMEDIES[error.code];
  return refusal(error.message, step ?? 'see the kernel log for more (journalctl -k)');
}

/** The same of any error; of a fault of the program, nobody knows what to do. */
export function startupFailure(error: unknown): string {
  if (error instanceof SettingsError || error instanceof SystemError) return startRefusal(error);
  return error instanceof Error ? error.message : String(error);
}
