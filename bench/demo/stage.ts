/** The daemon and the VM of the demo. Whatever was begun, however far it came, clear() ends it. */
import { DaemonProcess } from '../../test/support/daemon.js';
import { Guest } from '../../test/support/lab/guest.js';

export const VM = 'demo';
export const MEMORY_MIB = 2048;

/** Without free page reporting: what comes back to the host is then the balloon's doing alone. */
const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ", "VIRTIO_BALLOON_F_DEFLATE_ON_OOM"]
`;
/** Inflate, deflate and statistics. */
const QUEUES = 3;

/** QEMU emulates the string instructions that these bits recommend ten times slower than the loops they replace. */
const CPU = 'max,la57=off,erms=off,fsrm=off,fsrs=off';

/** Linux would keep a hundred MiB of what the balloon frees on a list for each processor, which MemFree leaves out. */
const KERNEL_ARGS = ['sysctl.vm.percpu_pagelist_high_fraction=1000'];

export class Stage {
  #daemon: Promise<DaemonProcess> | null = null;
  #guest: Promise<Guest> | null = null;

  startDaemon(): Promise<DaemonProcess> {
    return (this.#daemon = DaemonProcess.start({ config: CONFIG }));
  }

  bootGuest({ socketPath }: DaemonProcess): Promise<Guest> {
    return (this.#guest = Guest.boot({
      name: VM,
      memoryMib: MEMORY_MIB,
      sockets: [{ path: socketPath, numVqs: QUEUES }],
      extraArgs: ['-cpu', CPU],
      kernelArgs: KERNEL_ARGS,
    }));
  }

  async clear(): Promise<void> {
    const guest = await settled(this.#guest);
    await guest?.kill();
    const daemon = await settled(this.#daemon);
    await daemon?.stop();
  }
}

/** Null when it never came to be: then there is nothing to end. */
async function settled<T>(promise: Promise<T> | null): Promise<T | null> {
  if (promise === null) return null;
  return promise.catch(() => null);
}
