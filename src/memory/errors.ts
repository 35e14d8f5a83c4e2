/**
 * Errors by culprit. A FrontendError is the VMM's doing (a message that cannot be honoured), a DriverError the
 * guest's (a ring or buffer that breaks the specification); SystemError (src/os) is the operator's to mend.
 */
export class FrontendError extends Error {
  override readonly name: string = 'FrontendError';
}

/** The dirty log of a VMM has no bit for a page that was written. */
export class LogError extends FrontendError {
  override readonly name = 'LogError';
}

/** The state of a device did not go from or to the VMM, or cannot be gone on from. */
export class TransferError extends FrontendError {
  override readonly name = 'TransferError';
}

export class DriverError extends Error {
  override readonly name: string = 'DriverError';
}

/** A ring or buffer that is in no memory that the VMM shares: the driver names addresses that are wrong, or memory is private. */
export class OutsideError extends DriverError {
  override readonly name = 'OutsideError';
}
