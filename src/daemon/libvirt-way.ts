/** The way to the QEMU of a domain that libvirt runs: through libvirt, which has QEMU's QMP socket for itself. */
import { VmmError, type AdoptedVmm } from '../../protocol/adopted.js';
import type { NextStep } from '../../protocol/control/refusal.js';
import { XmlError } from '../../protocol/libvirt/xml.js';
import type { DomainProcesses } from '../host/domain-process.js';
import type { Libvirt } from '../libvirt/libvirt.js';
import type { Obstacle, Way } from './adoption.js';

interface LibvirtWayOptions {
  readonly libvirt: Libvirt;
  readonly processes: DomainProcesses;
  /** Whether the daemon serves a balloon to the process. */
  readonly serves: (pid: number) => boolean;
  /** Whether the configuration names the domain, and no operator released it. */
  readonly wants: (name: string) => boolean;
}

/** The class of what is as the operator of the domain wants it. */
const WANTED = 'wanted';
/** The class of the error on a domain that ended while the daemon looked at it. */
const ENDED = 'ended';

export class LibvirtWay implements Way {
  readonly kind = 'libvirt';
  readonly socketPath = null;
  readonly #object: string;
  readonly #options: LibvirtWayOptions;
  #name: string | null = null;
  #vmm: AdoptedVmm | null = null;

  /** `object`: the path of the domain's object on the bus. */
  constructor(object: string, options: LibvirtWayOptions) {
    this.#object = object;
    this.#options = options;
  }

  get words(): string {
    return `the domain ${this.#name ?? this.#object}`;
  }

  get path(): string {
    return `libvirt:${this.#name ?? this.#object}`;
  }

  async reach(): Promise<AdoptedVmm> {
    const { libvirt, processes, serves, wants } = this.#options;
    const words = await libvirt.describe(this.#object).catch((error: unknown) => this.#ended(error));
    this.#name = words.name;
    if (!wants(words.name)) throw new VmmError('it is to be left alone', WANTED);
    const pid = await processes.of(words);
    if (words.balloon === null) {
      if (pid !== null && serves(pid)) throw new VmmError("it has balloond's own device", WANTED);
      throw new VmmError('it has no balloon of QEMU', 'no-balloon');
    }
    if (words.hasVirtioMem) throw new VmmError('it has memory of virtio-mem', 'virtio-mem');
    if (pid === null)
      return await this.#ended(new VmmError('no process of this host is known to be it', 'no-process'));
    return (this.#vmm = libvirt.adopt(this.#object, words, pid));
  }

  /** Throws the error, or that the domain ended, where that is why. */
  async #ended(error: unknown): Promise<never> {
    if (!(error instanceof VmmError) || error.errorClass === null) throw error;
    const active = await this.#options.libvirt.active();
    throw active.includes(this.#object) ? error : new VmmError('it ended', ENDED);
  }

  giveUp(): void {
    this.#vmm?.close();
  }

  obstacle(error: unknown): Obstacle {
    if (error instanceof XmlError) {
      return {
        why: `libvirt describes it in words of which ${error.message}`,
        step: STEPS.other,
        isAbsent: false,
      };
    }
    if (!(error instanceof VmmError)) throw error;
    const step = STEPS[error.errorClass ?? ''] ?? STEPS.other;
    const isUnwanted = error.errorClass === WANTED;
    return {
      why: error.message,
      step,
      isAbsent: isUnwanted || error.errorClass === ENDED || this.#options.libvirt.isAway,
      isUnwanted,
    };
  }
}

const STEPS: Readonly<Record<string, NextStep>> & { readonly other: NextStep } = {
  'no-balloon':
    "give the domain <memballoon model='virtio'/>, or balloond's own device with balloonctl libvirt enable",
  'virtio-mem': 'use a QMP socket of the VM instead, since QEMU tells the two sizes apart',
  'no-process': 'run the daemon in the PID namespace of the host, as root or with CAP_SYS_PTRACE',
  other: 'see the log of libvirtd; the daemon tries again',
};
