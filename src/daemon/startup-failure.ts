import { PathTakenError, SystemError, type Standing } from '../os/errors.js';

const REMEDIES: Readonly<Record<string, string>> = {
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
const TAKEN_REMEDIES: Readonly<Record<Standing, string>> = {
  socket: 'stop the process that listens there (another balloond?), or give another path',
  folder: 'a folder is there, give the path of a file in it',
  file: 'a file is there, move it away, or give another path',
  link: 'a symbolic link that leads nowhere is there, move it away, or give another path',
  nothing: 'try again, since the file that was there is gone',
  hidden: 'give a path in a folder that balloond may look into',
};

/** One line for each mistake: why the daemon could not start, and what to do. */
export function startupFailure(error: unknown): string {
  const reason = error instanceof Error ? error.message : String(error);
  if (error instanceof PathTakenError) return `${reason}: ${TAKEN_REMEDIES[error.standing]}`;
  if (!(error instanceof SystemError)) return reason;
  return `${reason}: ${REMEDIES[error.code] ?? 'see the kernel log for more (journalctl -k)'}`;
}
