import type { QmpError } from '../../protocol/qmp/error.js';
import type { Diagnosis } from './diagnosis.js';

/** What is wrong with a VM whose QEMU refused a command, or does not answer. */
export function troubleOf({ message, errorClass }: QmpError): Diagnosis {
  if (errorClass === null) {
    return {
      code: 'qmp-unanswered',
      text: `the daemon cannot move the balloon, since ${message}`,
      remedy: 'look whether QEMU hangs or writes a snapshot; the daemon asks again every 10 s',
    };
  }
  return {
    code: 'qmp-refused',
    text: `QEMU refused a command of the daemon: ${message}`,
    remedy: "see QEMU's log, and set the target again",
  };
}
