import type { VmmError } from '../../protocol/adopted.js';
import type { Diagnosis } from './diagnosis.js';

/** What is wrong with a VM whose VMM refused a command, or does not answer. `peer`: the program that answers. */
export function troubleOf({ message, errorClass }: VmmError, peer: string): Diagnosis {
  if (errorClass === null) {
    return {
      code: 'qmp-unanswered',
      text: `the daemon cannot move the balloon, since ${message}`,
      remedy: 'look whether QEMU hangs or writes a snapshot; the daemon asks again every 10 s',
    };
  }
  return {
    code: 'qmp-refused',
    text: `${peer} refused a command of the daemon: ${message}`,
    remedy: "see QEMU's log, and set the target again",
  };
}
