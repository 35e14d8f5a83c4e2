import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';

/** A system call that failed: the operator's to mend. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  /** Such as `EINVAL`. */
  readonly code: string;
  readonly syscall: string;

  constructor(errno: number, syscall: string, subject?: string) {
    const code = getSystemErrorName(-Math.abs(errno));
    super(subject === undefined ? `${syscall}: ${code}` : `${syscall} ${subject}: ${code}`);
    this.code = code;
    this.syscall = syscall;
  }
}

/** What is at a path where a socket was to be made; `foreign`: a socket that this process may not connect to. */
export type Standing = 'nothing' | 'hidden' | 'folder' | 'socket' | 'foreign' | 'link' | 'file';

/** A path cannot be listened on, since something is there that is not left over from a process that ended. */
export class PathTakenError extends SystemError {
  readonly standing: Standing;

  constructor(path: string, standing: Standing) {
    super(constants.errno.EADDRINUSE, 'listen on', path);
    this.standing = standing;
  }
}

/** The native helper is not there, or was built for another machine. */
export class HelperError extends Error {
  override readonly name = 'HelperError';

  constructor(cause: unknown) {
    const [reason] = String(cause instanceof Error ? cause.message : cause).split('\n');
    super(
      `the native helper does not load (${reason}): run \`npm run build\` in the folder of its sources, or install balloond again`,
      { cause },
    );
  }
}

/** Passes a native result on; a negative one is an errno. */
export function checked(result: number, syscall: string, subject?: string): number {
  if (result < 0) throw new SystemError(-result, syscall, subject);
  return result;
}
