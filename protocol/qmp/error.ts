/** A peer that does not speak QMP, or a command that QEMU refused or did not answer: the end of a sentence on that QEMU. */
export class QmpError extends Error {
  override readonly name = 'QmpError';

  constructor(
    message: string,
    /** QEMU's class of the error, such as `DeviceNotActive`; null: it is none of QEMU's. */
    readonly errorClass: string | null = null,
  ) {
    super(message);
  }
}
