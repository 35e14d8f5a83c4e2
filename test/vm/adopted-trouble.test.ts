import { spawn } from 'node:child_process';
import t from 'tap';
import { VmmError } from '../../protocol/adopted.js';
import { isStopped } from '../../src/host/process-id.js';
import { AdoptedTrouble } from '../../src/vm/adopted-trouble.js';
import { eventually } from '../support/deadline.js';

void t.test(
  'a VMM that does not answer because its process is stopped has a verdict that says how it goes on',
  async (t) => {
    const vmm = spawn('sleep', ['1000']);
    t.teardown(() => vmm.kill('SIGKILL'));
    const { pid = 0 } = vmm;
    const told: string[] = [];
    const trouble = new AdoptedTrouble({
      peer: 'QEMU',
      pid,
      emit: (_, message) => told.push(message),
      goesOn: () => undefined,
    });
    const silent = new VmmError('QEMU does not answer balloon within 10 s');
    trouble.failed(silent);
    t.match(told.pop(), /since QEMU does not answer balloon within 10 s: look whether QEMU hangs/);
    vmm.kill('SIGSTOP');
    await eventually(
      () => isStopped(pid),
      () => 'it is stopped',
    );
    trouble.failed(silent);
    t.match(
      told.pop(),
      new RegExp(`\\(pid ${pid}\\) is stopped by a signal .*: let it go on \\(kill -CONT ${pid},`),
    );
    vmm.kill('SIGCONT');
    await eventually(
      () => !isStopped(pid),
      () => 'it goes on',
    );
  },
);
