import { BalloonFeature } from '../protocol/virtio/balloon.js';
import { Mapping } from '../src/os/mapping.js';
import { nap } from './nap.js';
import type { QtestMachine } from './qtest-machine.js';

/** virtio-mmio registers (virtio 1.3, 4.2.2). */
const MAGIC = 0x000;
const DEVICE_ID = 0x008;
const DEVICE_FEATURES = 0x010;
const DEVICE_FEATURES_SEL = 0x014;
const DRIVER_FEATURES = 0x020;
const DRIVER_FEATURES_SEL = 0x024;
const QUEUE_SEL = 0x030;
const QUEUE_NUM = 0x038;
const QUEUE_READY = 0x044;
const QUEUE_NOTIFY = 0x050;
const STATUS = 0x070;
const QUEUE_DESC_LOW = 0x080;
const QUEUE_DRIVER_LOW = 0x090;
const QUEUE_DEVICE_LOW = 0x0a0;
const MMIO_BASE = 0xfeb00000;
const MMIO_STEP = 512;
const MMIO_SLOTS = 24;
const VIRT_MAGIC = 0x74726976;
const ACKNOWLEDGE_DRIVER = 3;
const FEATURES_OK = 11;
const DRIVER_OK = 15;

/** Where the driver keeps its rings and buffers: all that this process maps of the guest's memory. */
const DRIVER_GPA = 0x200000;
const DRIVER_BYTES = 0x200000;
const QUEUE_BYTES = 0x10000;
const RING_SIZE = 128;
const DESC = 0x0000;
const AVAIL = 0x1000;
const USED = 0x2000;
const BUFFER = 0x3000;

/** The driver looks for an ack so long without a pause, as KVM polls for a halted vCPU by default. */
const SPIN_MS = 0.2;
const ACK_TIMEOUT_MS = 10_000;

export const INFLATE = 0;
export const DEFLATE = 1;

interface Ring {
  readonly base: number;
  readonly avail: Uint16Array;
  readonly used: Uint16Array;
  next: number;
}

/**
 * The driver of a QtestMachine's balloon, with one buffer under way at a time. It waits for an ack as a vCPU does:
 * stopped until its notification was taken, then with an eye on the ring for a moment, then asleep between looks. One
 * that never slept would keep a core from those who are to answer.
 */
export class QtestBalloon {
  readonly machine: QtestMachine;
  readonly #memory: Mapping;
  readonly #rings: readonly Ring[];
  readonly #device: number;

  constructor(machine: QtestMachine) {
    this.machine = machine;
    // None of the driver's own pages comes into being while others are counted.
    machine.fill(DRIVER_GPA, DRIVER_BYTES, 0);
    this.#memory = Mapping.map(machine.memoryFd, DRIVER_GPA, DRIVER_BYTES);
    this.#rings = [INFLATE, DEFLATE].map((queue) => {
      const base = queue * QUEUE_BYTES;
      const view = (at: number): Uint16Array => new Uint16Array(this.#memory.view(base + at, 0x1000));
      return { base, avail: view(AVAIL), used: view(USED), next: 0 };
    });
    this.#device = this.#find();
    this.#start();
  }

  /** The address of its registers, and of each ring its entries and the guest addresses of its areas and buffer. */
  get addresses(): { device: number; rings: readonly (readonly number[])[] } {
    const rings = this.#rings.map(({ base }) => [
      RING_SIZE,
      ...[DESC, AVAIL, USED, BUFFER].map((at) => DRIVER_GPA + base + at),
    ]);
    return { device: this.#device, rings };
  }

  /** One buffer of page frame numbers. Returns the microseconds from the kick until the device gave it back. */
  submit(queue: typeof INFLATE | typeof DEFLATE, pfns: Uint8Array): number {
    const ring = this.#rings[queue];
    if (ring === undefined) return NaN;
    const descriptor = new DataView(new ArrayBuffer(16));
    descriptor.setUint32(0, DRIVER_GPA + ring.base + BUFFER, true);
    descriptor.setUint32(8, pfns.length, true);
    this.#memory.write(ring.base + BUFFER, pfns, 0, pfns.length);
    this.#memory.write(ring.base + DESC, new Uint8Array(descriptor.buffer), 0, 16);
    ring.avail[2 + (ring.next % RING_SIZE)] = 0;
    ring.next = (ring.next + 1) & 0xffff;
    Atomics.store(ring.avail, 1, ring.next);
    const start = performance.now();
    this.#write(QUEUE_NOTIFY, queue);
    const answered = performance.now();
    for (let now = answered; Atomics.load(ring.used, 1) !== ring.next; now = performance.now()) {
      if (now - answered > SPIN_MS) nap();
      if (now - answered > ACK_TIMEOUT_MS) throw new Error('a buffer is not given back');
    }
    return (performance.now() - start) * 1000;
  }

  /** Microseconds of the least that this driver can ask of QEMU: a part of every kick. */
  readStatus(): number {
    const start = performance.now();
    this.#read(STATUS);
    return (performance.now() - start) * 1000;
  }

  async close(): Promise<void> {
    this.#memory.close();
    await this.machine.close();
  }

  #find(): number {
    for (let slot = 0; slot < MMIO_SLOTS; slot++) {
      const device = MMIO_BASE + slot * MMIO_STEP;
      const read = (register: number): number => this.#read(register, device);
      if (read(MAGIC) === VIRT_MAGIC && read(DEVICE_ID) === 5) return device;
    }
    throw new Error('QEMU has no balloon');
  }

  #start(): void {
    this.#write(STATUS, 0);
    this.#write(STATUS, ACKNOWLEDGE_DRIVER);
    this.#write(DEVICE_FEATURES_SEL, 0);
    const mustTellHost = 1 << BalloonFeature.VIRTIO_BALLOON_F_MUST_TELL_HOST;
    const offered = this.#read(DEVICE_FEATURES);
    this.#write(DRIVER_FEATURES_SEL, 0);
    this.#write(DRIVER_FEATURES, offered & mustTellHost);
    // VIRTIO_F_VERSION_1, bit 32.
    this.#write(DRIVER_FEATURES_SEL, 1);
    this.#write(DRIVER_FEATURES, 1);
    this.#write(STATUS, FEATURES_OK);
    for (const [queue, { base }] of this.#rings.entries()) {
      this.#write(QUEUE_SEL, queue);
      this.#write(QUEUE_NUM, RING_SIZE);
      this.#write(QUEUE_DESC_LOW, DRIVER_GPA + base + DESC);
      this.#write(QUEUE_DRIVER_LOW, DRIVER_GPA + base + AVAIL);
      this.#write(QUEUE_DEVICE_LOW, DRIVER_GPA + base + USED);
      this.#write(QUEUE_READY, 1);
    }
    this.#write(STATUS, DRIVER_OK);
  }

  #write(register: number, value: number): void {
    this.machine.command(`writel 0x${(this.#device + register).toString(16)} 0x${value.toString(16)}`);
  }

  #read(register: number, device = this.#device): number {
    return Number(this.machine.command(`readl 0x${(device + register).toString(16)}`));
  }
}
