/** `balloonctl qemu-args`: the arguments with which QEMU gives its balloon to the daemon. */
import { BALLOON_QUEUES } from '../../../protocol/virtio/balloon.js';
import { BALLOON_SPACE_BYTES } from '../../../protocol/virtio/cache-balloon.js';
import type { VMMS } from './choices.js';
import { UsageError } from './exit.js';

const MIB = 1024 ** 2;

interface QemuArgs {
  /** Guest RAM; QEMU wants whole MiB. */
  readonly memoryBytes: number;
  /** The guest's name, by which the daemon then knows the VM. */
  readonly name: string | undefined;
  /** Where the daemon listens for VMMs. */
  readonly socketPath: string;
  /** Where it listens for page cache balloons; without, the VM has none. */
  readonly cacheSocketPath?: string | undefined;
  /** Each device is in a port of its own, from which it can be unplugged; for machines with PCI Express. */
  readonly hotPlug?: boolean;
}

type Properties = Readonly<Record<string, string | number>>;

/** From 0x1a on, libvirt has places of its own for sound, USB and bridges. */
const LAST_SLOT = 0x19;
/** Of QEMU's generic device: the queues and the config space of a balloon, with those of a page cache balloon for guests that have one. */
const BALLOON: Properties & { readonly id: string; readonly chardev: string } = {
  driver: 'vhost-user-test-device-pci',
  // By its id the device can be unplugged, or asked for its properties.
  id: 'balloon',
  chardev: 'balloon',
  'virtio-id': 5,
  num_vqs: BALLOON_QUEUES.length,
  vq_size: 256,
  config_size: BALLOON_SPACE_BYTES,
};
const CACHE_BALLOON: typeof BALLOON = {
  ...BALLOON,
  id: 'cache-balloon',
  chardev: 'cache-balloon',
  'virtio-id': 13,
  num_vqs: 2,
  vq_size: 64,
  config_size: 28,
};

/** As an argument vector: option, value, option, value. Throws UsageError. */
export function qemuArguments(args: QemuArgs): string[] {
  const { memoryBytes, name } = args;
  const mib = wholeMib(memoryBytes);
  const size = mib % 1024 === 0 ? `${mib / 1024}G` : `${mib}M`;
  return [
    ...(name === undefined ? [] : ['-name', `guest=${escapeCommas(name)}`]),
    '-m',
    size,
    // Without share=on the daemon would see a private copy of the guest's memory. It is a memfd, which QEMU aligns to the 2 MiB of
    // huge pages; memory-backend-memfd it maps 4 KiB off, where the kernel can have none.
    '-object',
    `memory-backend-ram,id=balloon-mem,size=${size},share=on`,
    '-machine',
    'memory-backend=balloon-mem',
    ...deviceArguments(args, ({ driver, ...properties }) =>
      [driver, ...Object.entries(properties).map(([key, value]) => `${key}=${value}`)].join(','),
    ),
  ];
}

/** `render`: the text of a device; `isPlaced`: it stands on the bus of the machine, and not in a port. */
function deviceArguments(
  { socketPath, cacheSocketPath, hotPlug = false }: Omit<QemuArgs, 'memoryBytes' | 'name'>,
  render: (device: Properties, isPlaced: boolean) => string,
): string[] {
  const devices = [{ path: socketPath, device: BALLOON }];
  if (cacheSocketPath !== undefined) devices.push({ path: cacheSocketPath, device: CACHE_BALLOON });
  return devices.flatMap(({ path, device }, index) => {
    const port = { driver: 'pcie-root-port', id: `${device.id}-port`, chassis: LAST_SLOT - index };
    return [
      // No reconnect: with it QEMU fails to start the device.
      ...['-chardev', `socket,id=${device.chardev},path=${escapeCommas(path)}`],
      ...(hotPlug ? ['-device', render(port, true)] : []),
      ...['-device', hotPlug ? render({ ...device, bus: port.id }, false) : render(device, true)],
    ];
  });
}

/** Throws UsageError. */
function wholeMib(memoryBytes: number): number {
  if (memoryBytes === 0 || memoryBytes % MIB !== 0) {
    throw new UsageError('--memory must be a whole number of MiB, 1M or more');
  }
  return memoryBytes / MIB;
}

/** As an argument vector for VMMs that have one. Throws UsageError. */
export function vmmArguments(kind: Exclude<(typeof VMMS)[number], 'libvirt'>, args: QemuArgs): string[] {
  if (kind === 'qemu') return qemuArguments(args);
  const mib = wholeMib(args.memoryBytes);
  for (const [option, given] of [
    ['--cache-balloon', args.cacheSocketPath !== undefined],
    ['--hot-plug', args.hotPlug === true],
  ] as const)
    if (given) throw new UsageError(`${option}: only QEMU can have one, give --for qemu or --for libvirt`);
  if (kind === 'crosvm') {
    // Its own balloon would be a second one: a switch, after which a value would be the path of the kernel. Guest memory is
    // always shared.
    return ['--mem', `size=${mib}`, '--vhost-user', `balloon,socket=${args.socketPath}`, '--no-balloon'];
  }
  // It passes on no bit of a page cache balloon, so that five queues will do. Version 52 has no other word for it than virtio_id, and later ones, which call it device_type, take both.
  return [
    ...['--memory', `size=${mib}M,shared=on`],
    '--generic-vhost-user',
    `socket=${args.socketPath},virtio_id=5,queue_sizes=[256,256,256,256,256]`,
  ];
}

/** The words for QEMU of a domain whose balloon is served at `socketPath`. */
export function libvirtWords(socketPath: string): string[] {
  return placedDevices({ socketPath });
}

function placedDevices(args: Omit<QemuArgs, 'memoryBytes' | 'name'>): string[] {
  // As JSON: QEMU makes all other devices first, and this one would take a PCI slot that libvirt has given away. It is
  // behind those that libvirt, which does not know of it, gives to what is plugged in later.
  let slot = LAST_SLOT;
  return deviceArguments(args, (each, isPlaced) =>
    JSON.stringify({ ...each, ...(isPlaced && { addr: `0x${(slot--).toString(16)}` }) }),
  );
}

/** A libvirt domain with what the balloon needs, and nothing else. Throws UsageError. */
export function libvirtXml(args: QemuArgs): string {
  return [
    "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
    `  <name>${escapeXml(args.name ?? 'vm')}</name>`,
    `  <memory unit='MiB'>${wholeMib(args.memoryBytes)}</memory>`,
    '  <memoryBacking>',
    "    <source type='memfd'/>",
    "    <access mode='shared'/>",
    '  </memoryBacking>',
    '  <os>',
    "    <type arch='x86_64' machine='q35'>hvm</type>",
    '  </os>',
    '  <devices>',
    "    <memballoon model='none'/>",
    '  </devices>',
    '  <qemu:commandline>',
    ...placedDevices(args).map((word) => `    <qemu:arg value='${escapeXml(word)}'/>`),
    '  </qemu:commandline>',
    '</domain>',
  ].join('\n');
}

/** For attributes in single quotes, and text. */
function escapeXml(text: string): string {
  return text.replaceAll(/[&<>']/g, (letter) => `&#${letter.charCodeAt(0)};`);
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
