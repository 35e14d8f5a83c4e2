/** From what a test wants of a guest to QEMU's command line. */
import type { Lab } from './lab.js';
import { MACHINES, type Machine } from './machines.js';

export interface DeviceOptions {
  /** Where a vhost-user backend listens. */
  readonly path: string;
  /** Default 5, the traditional balloon. */
  readonly virtioId?: number;
  readonly numVqs?: number;
  readonly vqSize?: number;
  readonly configSize?: number;
  /** More device properties, such as `,packed=on`. */
  readonly extra?: string;
}

export interface GuestOptions {
  /** QEMU's `-name guest=NAME`. */
  readonly name: string;
  /** Default x86, the lab's own. */
  readonly machine?: Machine;
  readonly memoryMib: number;
  /** vhost-user devices, in the order of their PCI slots. */
  readonly sockets?: readonly DeviceOptions[];
  /** QEMU's own virtio-balloon-pci, with free page reporting; its id is `balloon0`. */
  readonly builtinBalloon?: boolean;
  /** Default memfd. `hugetlb` takes 2 MiB pages, which the host must have reserved. */
  readonly backing?: 'memfd' | 'hugetlb';
  /** A mount of hugetlbfs that the memory is in, in place of a memfd. */
  readonly memoryFolder?: string;
  /** Default true. */
  readonly share?: boolean;
  /** Default 1. */
  readonly cpus?: number;
  /** Default only with more processors or memory slots, which need it; so does a disk that is to interrupt by message. */
  readonly acpi?: boolean;
  /** Memory slots for Guest.addMemory. */
  readonly hotplugSlots?: number;
  /** What `balloonctl qemu-args` printed, in place of name, memory and devices of ours. */
  readonly pasted?: readonly string[];
  /** A raw image with an ext4 root that is booted in place of the lab's guest; what changes is thrown away. */
  readonly rootImage?: string;
  /** A kernel in place of the lab's; with `rootImage`, it has to have the driver of the disk built in. */
  readonly kernel?: string;
  readonly extraArgs?: readonly string[];
  /** More of the kernel's command line; `balloon=off` leaves the balloon driver out. */
  readonly kernelArgs?: readonly string[];
}

/** Where QEMU finds the socket pairs it shares with its parent. */
export const FDS = { agent: 3, qmp: 4, console: 5 } as const;

const ROOT_DISK = 'root=/dev/nvme0n1 rootwait rw';
const GIB_IN_MIB = 1024;

/** Properties of a memory backend of `memoryMib`, after its type. */
export function memoryBackend({ backing = 'memfd', share = true }: GuestOptions, memoryMib: number) {
  return {
    size: memoryMib * 1024 ** 2,
    share,
    ...(backing === 'hugetlb' && { hugetlb: true, hugetlbsize: 2 * 1024 ** 2 }),
  };
}

export function qemuArguments(lab: Lab, options: GuestOptions): string[] {
  const { name, memoryMib, sockets = [], cpus = 1, hotplugSlots = 0, rootImage } = options;
  const machine: Machine = options.machine ?? MACHINES.x86;
  // It takes half a second under emulation.
  const acpi = (options.acpi ?? (cpus > 1 || hotplugSlots > 0)) ? 'on' : 'off';
  const slots = hotplugSlots > 0 ? `,slots=${hotplugSlots},maxmem=${memoryMib + 8 * GIB_IN_MIB}M` : '';
  const backend =
    options.memoryFolder === undefined
      ? { 'qom-type': 'memory-backend-memfd' }
      : { 'qom-type': 'memory-backend-file', 'mem-path': options.memoryFolder };
  const memory = { ...backend, id: 'mem', ...memoryBackend(options, memoryMib) };
  const kernelArgs = [
    ...machine.kernelArgs,
    'quiet',
    ...(acpi === 'off' ? ['acpi=off'] : []),
    ...(rootImage === undefined ? [] : [ROOT_DISK]),
    ...(options.kernelArgs ?? []),
  ];
  return [
    ...(options.pasted === undefined ? ['-name', `guest=${name}`] : []),
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-run-with', 'exit-with-parent=on'],
    ...['-accel', machine.accel ?? 'tcg,thread=multi', '-smp', `${cpus}`],
    ...machine.board(acpi),
    ...(options.pasted === undefined
      ? ['-machine', 'memory-backend=mem', '-m', `${memoryMib}M${slots}`, '-object', JSON.stringify(memory)]
      : []),
    ...['-kernel', options.kernel ?? lab.kernel, '-append', kernelArgs.join(' ')],
    ...(rootImage === undefined ? ['-initrd', lab.initramfs] : rootDisk(rootImage)),
    ...['-chardev', `socket,id=console,fd=${FDS.console}`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=qmp,fd=${FDS.qmp}`, '-object', 'monitor-qmp,id=monitor,chardev=qmp'],
    ...['-chardev', `socket,id=agent,fd=${FDS.agent}`],
    ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=agent'],
    ...(options.builtinBalloon === true
      ? ['-device', 'virtio-balloon-pci,id=balloon0,free-page-reporting=on']
      : []),
    // The guest's agent knows its port by the order of the devices.
    ...(options.pasted ?? sockets.flatMap(device)),
    ...(options.extraArgs ?? []),
  ];
}

/** Debian's cloud kernel has the driver built in, and finds a second disk of the kind in any order. */
function rootDisk(image: string): string[] {
  const file = image.replaceAll(',', ',,');
  return [
    ...['-drive', `if=none,id=root,format=raw,snapshot=on,cache=unsafe,file=${file}`],
    ...['-device', 'nvme,drive=root,serial=root'],
  ];
}

function device(options: DeviceOptions, index: number): string[] {
  const { path, virtioId = 5, numVqs = 7, vqSize = 256, configSize = 44, extra = '' } = options;
  return [
    ...['-chardev', `socket,id=vhost${index},path=${path}`],
    '-device',
    `vhost-user-test-device-pci,id=dev${index},chardev=vhost${index},virtio-id=${virtioId},` +
      `num_vqs=${numVqs},vq_size=${vqSize},config_size=${configSize}${extra}`,
  ];
}
