// A VM that connects for ever, beside honest ones: theirs is done, in order, and what is kept and told of the other is bounded.
import { readdirSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import type { Test } from 'tap';
import { examineReturns } from '../../src/control/cli/doctor.js';
import { wallNow } from '../../src/os/clock.js';
import { connectUnix } from '../../src/os/socket.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { pfns } from '../support/served-vm.js';
import { WireSocket } from '../support/wire-socket.js';
import { u32s } from '../support/wire.js';

const NAME = 'restless';
const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"

[[socket]]
path = "{folder}/restless.sock"
name = "${NAME}"
`;
const TIMES = 40;
const HONEST = 2;
const ROUNDS = 6;
const BUFFERS = 16;
const PFNS_EACH = 8;
const FIRST_PFN = 1024;
const BUFFERS_GPA = 0x80000;
/** Connections of balloonctl and of this test. */
const FDS_SPARE = 2;
const RAM_BYTES = 8 * 2 ** 20;
/** Of each kind of event, the log takes so many lines at once, and then one a second. */
const BURST = 10;

class Honest {
  private constructor(
    readonly frontend: Frontend,
    readonly driver: BalloonDriver,
  ) {}

  static async start(socket: string): Promise<Honest> {
    const frontend = new Frontend({ socket, ram: new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]) });
    await frontend.connect();
    return new Honest(frontend, await BalloonDriver.start(frontend, { areaGpa: 0x10000 }));
  }

  /** Offers many buffers at once, and demands them back in that order. */
  async tell(t: Test, role: 'inflate' | 'deflate'): Promise<void> {
    const ring = this.driver.ring(role);
    const heads: number[] = [];
    for (let n = 0; n < BUFFERS; n++) {
      const gpa = BUFFERS_GPA + n * PAGE_BYTES;
      this.frontend.ram.write(gpa, u32s(...pfns(FIRST_PFN + n * PFNS_EACH, PFNS_EACH)));
      heads.push(ring.add([{ gpa, len: 4 * PFNS_EACH }]));
    }
    ring.kick();
    const used = await ring.waitUsed(BUFFERS);
    const back = used.map(({ head }) => head);
    if (back.join() !== heads.join()) t.same(back, heads, `${role}: in order`);
  }
}

const RESTLESS: Record<string, (socket: string, n: number) => Promise<void>> = {
  'connects, negotiates and drops': async (socket, n) => {
    const frontend = new Frontend({ socket, ram: new GuestRam([{ gpa: 0, lenBytes: 2 ** 21 }]) });
    await frontend.connect();
    if (n % 3 === 0) await BalloonDriver.start(frontend, { areaGpa: 0x10000 });
    frontend.close();
  },
  'connects and sends garbage': async (socket, n) => {
    const wire = new WireSocket(connectUnix(socket), () => undefined);
    await wire.send(u32s(...Array.from({ length: 5 }, (_, at) => (n + 1) * 0x9e3779b1 * (at + 1))));
    await wire.closed;
  },
};

function linesOf(log: string, event: string): { time: string }[] {
  return log
    .split('\n')
    .filter((line) => line.includes(`"event":"${event}"`) && line.includes(`"vm":"${NAME}"`))
    .map((line) => JSON.parse(line) as { time: string });
}

const openFds = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

for (const [what, come] of Object.entries(RESTLESS)) {
  inEachOrder(`a VM that ${what} for ever harms nobody`, async (t) => {
    const daemon = await DaemonProcess.start({ config: CONFIG, supervise: true });
    t.teardown(() => daemon.stop());
    const vms: Honest[] = [];
    for (let n = 0; n < HONEST; n++) vms.push(await Honest.start(daemon.socketPath));
    for (const vm of vms) {
      await vm.tell(t, 'inflate');
      await vm.tell(t, 'deflate');
    }
    const keeper = daemon.child.pid ?? 0;
    await come(`${daemon.folder}/${NAME}.sock`, 0);
    const alone = async (): Promise<boolean> => (await daemon.list()).length === HONEST;
    await eventually(alone, () => 'only the honest ones are there');
    const before = { daemon: openFds(daemon.pid), keeper: openFds(keeper) };

    let came = 0;
    const restless = async (): Promise<void> => {
      for (; came < TIMES; came++) {
        await come(`${daemon.folder}/${NAME}.sock`, came);
        await turn();
      }
    };
    const honest = async (vm: Honest): Promise<void> => {
      for (let round = 0; round < ROUNDS; round++) {
        await vm.tell(t, 'inflate');
        await vm.tell(t, 'deflate');
      }
    };
    await Promise.all([restless(), ...vms.map(honest)]);

    await eventually(alone, () => 'nothing of it is left');
    const bytes = (ROUNDS + 1) * BUFFERS * PFNS_EACH * PAGE_BYTES;
    for (const { balloon } of await daemon.list()) {
      t.match(balloon, { inflatedBytesTotal: bytes, deflatedBytesTotal: bytes, actualBytes: 0 });
    }
    t.same(
      vms.flatMap(({ frontend }) => frontend.protocolViolations),
      [],
    );
    await eventually(
      () => openFds(daemon.pid) <= before.daemon + FDS_SPARE && openFds(keeper) <= before.keeper,
      () => `fds are closed: ${JSON.stringify({ before, now: [openFds(daemon.pid), openFds(keeper)] })}`,
    );

    for (const event of ['vm-connected', 'vm-disconnected', 'vm-dropped', 'vm-ready', 'memory-mapped']) {
      const times = linesOf(daemon.log, event).map(({ time }) => Date.parse(time));
      const seconds = Math.ceil(((times.at(-1) ?? 0) - (times[0] ?? 0)) / 1000);
      t.ok(times.length <= BURST + seconds + 1, `${event}: ${times.length} lines in ${seconds} s`);
    }
    const told = linesOf(daemon.log, 'vm-returns').length;
    t.ok(told >= 1 && told <= TIMES / BURST, `said ${told} times`);
    const events = await daemon.events();
    t.match(examineReturns(events, wallNow()), [{ subject: NAME, check: 'connections', level: 'mend' }]);
    const { code, stdout } = await daemon.ctl('doctor');
    t.not(code, 0);
    t.match(stdout, new RegExp(`${NAME}: connections: `), 'doctor has a line on it');
    t.equal(daemon.log.match(/"event":"daemon-started"/g)?.length, 1, 'the daemon lives');
    for (const { frontend } of vms) frontend.close();
    await eventually(
      async () => (await daemon.list()).length === 0,
      () => 'nobody is left',
    );
  });
}
