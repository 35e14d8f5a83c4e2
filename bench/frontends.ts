import { createMemfd } from '../src/os/memfd.js';
import { connectUnix } from '../src/os/socket.js';
import { BalloonDriver, LINUX_FEATURES } from '../test/support/balloon-driver.js';
import { Frontend } from '../test/support/frontend.js';
import { GuestRam } from '../test/support/guest-ram.js';
import { ANY_VMM } from '../test/support/vmm-orders.js';
import { PFN_PAGE_BYTES } from './patterns.js';
import { play } from './player.js';
import { QtestBalloon } from './qtest-balloon.js';
import { QtestMachine } from './qtest-machine.js';
import { Vcpu, type Step, type Told } from './vcpu.js';

/** What a VM's balloon is: behind a frontend of this process, behind QEMU, QEMU's own, or none at all. */
export type Kind = 'raw' | 'vhost-user device' | 'built-in' | 'limit';

export interface ConnectOptions {
  readonly kind: Kind;
  readonly vms: number;
  /** Of each VM. */
  readonly mib: number;
  /** Of the daemons that share the VMs. */
  readonly socketPaths: readonly string[];
  readonly qemu: string;
}

/** Some VMs, each with a vCPU that is a process of its own. This process sleeps once they are connected. */
export type FrontendsPart = {
  /** The processes that stand for each VM's VMM. */
  connect: { ask: ConnectOptions; answer: number[] };
  fill: { ask: null; answer: null };
  move: { ask: { step: Step; at: string }; answer: Told[] };
};

const FIRST_MIB = 16;
const FIRST_PFN = (FIRST_MIB * 2 ** 20) / PFN_PAGE_BYTES;
/** Behind the rings of BalloonDriver; a buffer for each queue. */
const BUFFERS_GPA = 2 ** 22;
const VHOST_DEVICE =
  'vhost-user-test-device,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=256,config_size=16';

const vcpus: Vcpu[] = [];

/** Connects as QEMU does and starts as Linux does; then the vCPU has the socket and the rings for itself. */
async function raw({ mib }: ConnectOptions, socketPath: string): Promise<number> {
  const memoryMib = FIRST_MIB + mib;
  const ram = new GuestRam([]);
  const file = ram.createFile(memoryMib * 2 ** 20);
  ram.add({ gpa: 0, lenBytes: file.sizeBytes, file });
  const frontend = new Frontend({ order: ANY_VMM, socket: connectUnix(socketPath), ram });
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend, { features: LINUX_FEATURES });
  const rings = [driver.ring('inflate'), driver.ring('deflate')];
  const vcpu = new Vcpu({
    ...{ mode: 'vhost', memoryMib, mib, firstPfn: FIRST_PFN },
    rings: rings.map(({ size, areas }, n) => [
      ...[size, areas.descriptorGpa, areas.driverGpa, areas.deviceGpa],
      BUFFERS_GPA + n * PFN_PAGE_BYTES,
    ]),
    fds: [file.fd, frontend.handOver(), ...rings.flatMap(({ kickFd, callFd }) => [kickFd, callFd])],
  });
  for (const ring of rings) ring.close();
  vcpus.push(vcpu);
  return vcpu.pid;
}

async function qtest({ kind, qemu, mib }: ConnectOptions, socketPath: string): Promise<number> {
  const memoryMib = FIRST_MIB + mib;
  const memoryFd = createMemfd('guest', memoryMib * 2 ** 20);
  const device = {
    raw: [],
    limit: [],
    'built-in': ['-device', 'virtio-balloon-device'],
    'vhost-user device': ['-chardev', `socket,id=balloon,path=${socketPath}`, '-device', VHOST_DEVICE],
  }[kind];
  const machine = await QtestMachine.start({ qemu, memoryMib, memoryFd, device });
  const common = { memoryMib, mib, firstPfn: FIRST_PFN, fds: [memoryFd, ...machine.fifos] };
  const vcpu = new Vcpu(
    kind === 'limit'
      ? { ...common, mode: 'limit' }
      : { ...common, mode: 'qtest', ...new QtestBalloon(machine).addresses },
  );
  vcpus.push(vcpu);
  return kind === 'limit' ? vcpu.pid : machine.pid;
}

play<FrontendsPart>({
  connect: async (options) => {
    const pids: number[] = [];
    const connect = options.kind === 'raw' ? raw : qtest;
    const { vms, socketPaths } = options;
    while (pids.length < vms) {
      pids.push(await connect(options, socketPaths[pids.length % socketPaths.length] ?? ''));
    }
    return pids;
  },
  fill: async () => {
    await Promise.all(vcpus.map((vcpu) => vcpu.fill()));
    return null;
  },
  move: ({ step, at }) => Promise.all(vcpus.map((vcpu) => vcpu.move(step, at))),
});
