/** `balloonctl qemu-args`: the arguments with which QEMU gives its balloon to the daemon. */
import { UsageError } from './exit.js';

const MIB = 1024 ** 2;

export interface QemuArgs {
  /** Guest RAM; QEMU wants whole MiB. */
  readonly memoryBytes: number;
  /** The guest's name, by which the daemon then knows the VM. */
  readonly name: string | undefined;
  /** Where the daemon listens for VMMs. */
  readonly socketPath: string;
  /** Where it listens for page cache balloons; without, the VM has none. */
  readonly cacheSocketPath?: string | undefined;
}

/** As an argument vector: option, value, option, value. Throws UsageError. */
export function qemuArguments({ memoryBytes, name, socketPath, cacheSocketPath }: QemuArgs): string[] {
  if (memoryBytes === 0 || memoryBytes % MIB !== 0) {
    throw new UsageError('--memory must be a whole number of MiB, 1M or more');
  }
  const gib = memoryBytes / (1024 * MIB);
  const size = Number.isInteger(gib) ? `${gib}G` : `${memoryBytes / MIB}M`;
  return [
    ...(name === undefined ? [] : ['-name', `guest=${escapeCommas(name)}`]),
    '-m',
    size,
    // Without share=on the daemon would see a private copy of the guest's memory.
    '-object',
    `memory-backend-memfd,id=balloon-mem,size=${size},share=on`,
    '-machine',
    'memory-backend=balloon-mem',
    // No reconnect: with it QEMU fails to start the device.
    '-chardev',
    `socket,id=balloon,path=${escapeCommas(socketPath)}`,
    '-device',
    'vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=256,config_size=16',
    ...(cacheSocketPath === undefined
      ? []
      : [
          '-chardev',
          `socket,id=cache-balloon,path=${escapeCommas(cacheSocketPath)}`,
          '-device',
          'vhost-user-test-device-pci,chardev=cache-balloon,virtio-id=13,num_vqs=2,vq_size=64,config_size=28',
        ]),
  ];
}

/** As lines to paste into a shell command. */
export function renderQemuArguments(args: readonly string[]): string {
  const lines: string[] = [];
  for (let index = 0; index < args.length; index += 2) {
    lines.push(
      args
        .slice(index, index + 2)
        .map(shellQuote)
        .join(' '),
    );
  }
  return lines.join(' \\\n');
}

/** QEMU's option syntax: a comma in a value is doubled. */
function escapeCommas(value: string): string {
  return value.replaceAll(',', ',,');
}

function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
