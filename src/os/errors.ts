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

/** Passes a native result on; a negative one is an errno. */
export function checked(result: number, syscall: string, subject?: string): number {
  if (result < 0) throw new SystemError(-result, syscall, subject);
  return result;
}
