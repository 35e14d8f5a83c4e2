// What a VMM may send that it must not. Each time: the error names the request, that VM alone bears it, and
// nothing of it is left in the daemon.
import { mkdtempSync, openSync, readSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { FrontendRequest, type FrontendRequestName } from '../../protocol/vhost-user/requests.js';
import { deviceOptions } from '../../src/daemon/settings.js';
import type { Vm } from '../../src/vm/vm.js';
import { createEventFd, drainEvent } from '../../src/os/eventfd.js';
import { StateFile } from '../../src/memory/state-file.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { send, socketPair } from '../../src/os/socket.js';
import { BALLOON_F, BalloonDriver } from '../support/balloon-driver.js';
import { Bystander, resources } from '../support/bystander.js';
import { eventually } from '../support/deadline.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { Nack } from '../support/frontend.js';
import { describeRegion, GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { F_EVENT_IDX } from '../support/guest-ring.js';
import { pfns, serveDevice, ServedVm } from '../support/served-vm.js';
import {
  bits,
  concat,
  encodeConfig,
  encodeMemoryTable,
  encodeMessage,
  encodeSingleRegion,
  encodeVringAddress,
  encodeVringState,
  NEED_REPLY_FLAG,
  NO_FD,
  PROTOCOL_F,
  readU64,
  REPLY_FLAG,
  REQUEST,
  u32s,
  u64s,
  VERSION,
  VHOST_USER_F_PROTOCOL_FEATURES,
  type WireRegion,
} from '../support/wire.js';

const MIB = 2 ** 20;
const NOTHING = new Uint8Array(0);
/** Guest memory of a served VM: 64 MiB in one region at 0. */
const RAM_BYTES = 64 * MIB;
const BEYOND = 0x7f0000000000n + BigInt(RAM_BYTES);

/** crosvm says all of its memory at once. */
const whereAdded = eachOrder({ protocolFeatures: bits(PROTOCOL_F.CONFIGURE_MEM_SLOTS) });
/** cloud-hypervisor hides these from its guest, which then owes no discards. */
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST, BALLOON_F.STATS_VQ) });

type Running = Awaited<ReturnType<typeof ServedVm.running>>;
type Options = Parameters<typeof ServedVm.running>[0];

const bystander = await Bystander.start();
t.teardown(() => bystander.close());

/** Runs `bad` with a VM of its own; afterwards nothing of that VM may be left, and the other one works. */
function contained(
  name: string,
  options: Options,
  bad: (t: Test, vm: Running) => Promise<void>,
  inOrders = inEachOrder,
): void {
  inOrders(name, async (t) => {
    const before = resources();
    const vm = await ServedVm.running(options);
    try {
      await bad(t, vm);
      await bystander.works();
    } finally {
      await vm.served.close();
    }
    t.same(resources(), before, 'nothing is left open or mapped');
  });
}

/** The request is refused with a negative acknowledgement and an event, and the VM goes on. */
async function refused(
  t: Test,
  { served, frontend }: Pick<Running, 'served' | 'frontend'>,
  name: FrontendRequestName,
  payload: Uint8Array,
  message: RegExp,
  fds: readonly number[] = [],
): Promise<void> {
  const events = served.saw('frontend-error').length;
  const asked = frontend.request(FrontendRequest[name], payload, { needReply: true, fds });
  await t.rejects(asked, new Nack(FrontendRequest[name], 1n), `${name}: ${message.source}`);
  const news = served.saw('frontend-error').slice(events);
  t.equal(news.length, 1, 'one event');
  t.equal(news[0]?.fields['request'], name);
  t.match(news[0]?.message, message);
  await frontend.ask(REQUEST.GET_FEATURES);
}

/** The connection is cut, with the reason. */
async function dropped(
  t: Test,
  { served, frontend }: Pick<Running, 'served' | 'frontend'>,
  message: RegExp,
): Promise<void> {
  await frontend.waitClosed();
  await served.until(() => served.closed, 'the VM is gone');
  const events = served.saw('vm-dropped');
  t.equal(events.length, 1, 'one event');
  t.match(events[0]?.message, message);
}

async function withFds(
  fds: readonly number[],
  use: (fds: readonly number[]) => Promise<void>,
): Promise<void> {
  try {
    await use(fds);
  } finally {
    fds.forEach(closeFd);
  }
}

function header(request: number, flags: number, sizeBytes: number): Uint8Array {
  return u32s(request, flags, sizeBytes);
}

/** Requests that a backend may receive, and the length of their payload in bytes. */
const PAYLOAD_BYTES: Partial<Record<FrontendRequestName, number>> = {
  GET_FEATURES: 0,
  SET_FEATURES: 8,
  SET_OWNER: 0,
  RESET_OWNER: 0,
  SET_LOG_BASE: 16,
  SET_LOG_FD: 0,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 40,
  SET_VRING_BASE: 8,
  GET_VRING_BASE: 8,
  SET_VRING_KICK: 8,
  SET_VRING_CALL: 8,
  SET_VRING_ERR: 8,
  GET_PROTOCOL_FEATURES: 0,
  SET_PROTOCOL_FEATURES: 8,
  GET_QUEUE_NUM: 0,
  SET_VRING_ENABLE: 8,
  SET_BACKEND_REQ_FD: 0,
  GET_CONFIG: 12,
  SET_CONFIG: 12,
  RESET_DEVICE: 0,
  GET_MAX_MEM_SLOTS: 0,
  ADD_MEM_REG: 40,
  REM_MEM_REG: 40,
  SET_STATUS: 8,
  GET_STATUS: 0,
  SET_MEM_TABLE: 8,
  SET_DEVICE_STATE_FD: 8,
  CHECK_DEVICE_STATE: 0,
};
const SERVED = Object.entries(PAYLOAD_BYTES) as [FrontendRequestName, number][];
/** Those answered with a payload: they cannot be refused, but by ending the connection. */
const QUESTIONS = new Set<FrontendRequestName>([
  'GET_FEATURES',
  'GET_PROTOCOL_FEATURES',
  'GET_MAX_MEM_SLOTS',
  'SET_LOG_BASE',
  'GET_VRING_BASE',
  'GET_QUEUE_NUM',
  'GET_STATUS',
]);
const NEEDS_FD = new Set<FrontendRequestName>([
  'ADD_MEM_REG',
  'SET_LOG_BASE',
  'SET_BACKEND_REQ_FD',
  'SET_DEVICE_STATE_FD',
]);
/** Those whose answer says that they are refused. */
const ANSWERED = new Set<FrontendRequestName>(['GET_CONFIG', 'SET_DEVICE_STATE_FD', 'CHECK_DEVICE_STATE']);
const ALL_PROTOCOL_FEATURES = bits(...Object.values(PROTOCOL_F));
const everything: Options = { frontend: { protocolFeatures: ALL_PROTOCOL_FEATURES } };

// --- the stream ---

inEachOrder('a connection that ends in the middle of a message', async (t) => {
  for (const bytes of [
    header(REQUEST.SET_FEATURES, VERSION, 8).subarray(0, 5),
    header(REQUEST.SET_FEATURES, VERSION, 8),
    encodeMessage(REQUEST.SET_FEATURES, VERSION, u64s(0n)).subarray(0, 19),
  ]) {
    const before = resources();
    const { served, frontend } = await ServedVm.running();
    await withFds([createEventFd()], async (fds) => {
      await frontend.sendRaw(bytes, fds);
      await served.close();
    });
    t.match(served.saw('vm-dropped'), [{ message: /middle of a message/ }]);
    t.same(resources(), before);
  }
  await bystander.works();
});

contained('a message in pieces of one byte is a message', {}, async (t, { served, frontend }) => {
  for (const byte of encodeMessage(REQUEST.SET_OWNER, VERSION | NEED_REPLY_FLAG, NOTHING)) {
    await frontend.sendRaw(Uint8Array.of(byte));
    await served.settle();
  }
  t.equal(readU64((await frontend.reply()).payload), 0n);
});

for (const [what, bytes, message] of [
  ['an oversized message', header(REQUEST.SET_MEM_TABLE, VERSION, 4097), /4097 bytes/],
  ['a message of 4 GiB', header(REQUEST.SET_MEM_TABLE, VERSION, 0xffffffff), /4294967295 bytes/],
  ['version 0', header(REQUEST.GET_FEATURES, 0, 0), /version 0/],
  ['version 2', header(REQUEST.GET_FEATURES, 2, 0), /version 2/],
  ['version 3', header(REQUEST.GET_FEATURES, 3, 0), /version 3/],
  ['a reply nobody asked for', header(REQUEST.GET_FEATURES, VERSION | REPLY_FLAG, 0), /reply/],
] as const) {
  contained(`${what} ends the connection`, {}, async (t, vm) => {
    await withFds([createEventFd()], (fds) => vm.frontend.sendRaw(bytes, fds));
    await dropped(t, vm, message);
  });
}

for (const [name, lengthBytes] of SERVED) {
  contained(`${name} with a payload of the wrong length`, everything, async (t, { served, frontend }) => {
    for (const wrong of [lengthBytes - 1, lengthBytes + 1].filter((length) => length >= 0)) {
      const vm = { served, frontend };
      await withFds(NEEDS_FD.has(name) ? [createMemfd('extra', PAGE_BYTES)] : [], async (fds) => {
        if (name === 'SET_MEM_TABLE' && wrong > lengthBytes) return;
        if (QUESTIONS.has(name)) {
          if (!frontend.isOpen) return;
          await frontend.sendRaw(encodeMessage(FrontendRequest[name], VERSION, new Uint8Array(wrong)), fds);
          await dropped(t, vm, new RegExp(`${name}.* bytes`));
        } else if (ANSWERED.has(name)) {
          const reply = await frontend.ask(FrontendRequest[name], new Uint8Array(wrong), fds);
          t.ok(reply.length === 0 || reply[0] === 1, 'an error');
          t.match(served.saw('frontend-error').at(-1)?.fields, { request: name });
        } else {
          await refused(t, vm, name, new Uint8Array(wrong), new RegExp(`${name}.* (bytes|header)`), fds);
        }
      });
    }
  });
}

contained(
  'a frontend that sends what must be refused, and asks for no answers, is cut off',
  {},
  async (t, vm) => {
    const bad = encodeMessage(REQUEST.SET_VRING_NUM, VERSION, encodeVringState(0, 0));
    await vm.frontend.sendRaw(concat(...Array.from({ length: 64 }, () => bad)));
    await vm.frontend.ask(REQUEST.GET_FEATURES);
    t.equal(vm.served.saw('frontend-error').length, 64);
    await vm.frontend.sendRaw(bad);
    await dropped(t, vm, /SET_VRING_NUM/);
  },
);

inEachOrder('a frontend that does not read its replies is cut off', async (t) => {
  const before = resources();
  const [ours, theirs] = socketPair();
  const events: string[] = [];
  const vms: Vm[] = [];
  const ended = new Promise<void>((resolve) => {
    const options = { ...deviceOptions({}, null, 'vm'), statsIntervalSeconds: 0 };
    const identity = { name: 'vm', pid: 2 ** 22 + 1, options };
    const handOver = { keeper: NO_KEEPER, state: StateFile.create(), found: null };
    const emit = (event: string, message: string): unknown => events.push(`${event}: ${message}`);
    vms.push(serveDevice(ours, identity, handOver, emit, resolve).vm);
  });
  const question = encodeMessage(REQUEST.GET_CONFIG, VERSION, encodeConfig(0, new Uint8Array(256)));
  await new Promise<void>((resolve) => {
    const negotiate = encodeMessage(REQUEST.SET_PROTOCOL_FEATURES, VERSION, u64s(bits(PROTOCOL_F.CONFIG)));
    send(theirs, negotiate, 0, negotiate.length, []);
    // A stream takes a part of a message when it is nearly full: the rest of it follows.
    let rest = question;
    const timer = setInterval(() => {
      try {
        for (;;) {
          const sent = send(theirs, rest, 0, rest.length, []);
          if (sent < 0) return;
          rest = sent === rest.length ? question : rest.subarray(sent);
        }
      } catch {
        clearInterval(timer);
        resolve();
      }
    }, 1);
  });
  await ended;
  closeFd(theirs);
  t.match(events.at(-1), /^vm-dropped: .*replies/);
  await bystander.works();
  t.same(resources(), before);
});

// --- requests that are not served ---

contained('requests of features that are not offered are refused by name', {}, async (t, vm) => {
  const unserved = (Object.keys(FrontendRequest) as FrontendRequestName[]).filter(
    (n) => !(n in PAYLOAD_BYTES),
  );
  t.ok(unserved.length >= 15);
  await withFds([createEventFd(), createMemfd('brought', PAGE_BYTES)], async (fds) => {
    for (const name of unserved) {
      await refused(t, vm, name, u64s(1n), new RegExp(`^${name} is not supported`), fds);
    }
  });
});

contained('unknown requests are refused by number', {}, async (t, { served, frontend }) => {
  for (const request of [0, 45, 1000, 0xffffffff]) {
    await t.rejects(frontend.request(request, u64s(7n), { needReply: true }), new Nack(request, 1n));
    t.match(served.saw('frontend-error').at(-1), { fields: { request: `request ${request}` } });
  }
});

inEachOrder('requests before what they need', async (t) => {
  const before = resources();
  for (const [name, feature] of [
    ['GET_MAX_MEM_SLOTS', 'CONFIGURE_MEM_SLOTS'],
    ['GET_QUEUE_NUM', 'MQ'],
    ['GET_STATUS', 'STATUS'],
    ['SET_LOG_BASE', 'LOG_SHMFD'],
  ] as const) {
    const served = new ServedVm();
    await withFds(name === 'SET_LOG_BASE' ? [createMemfd('log', PAGE_BYTES)] : [], async (fds) => {
      const payload = new Uint8Array(PAYLOAD_BYTES[name] ?? 0);
      await served.frontend.sendRaw(encodeMessage(FrontendRequest[name], VERSION, payload), fds);
      await dropped(t, { served, frontend: served.frontend }, new RegExp(`${name} without .*_F_${feature}`));
    });
    await served.close();
  }
  const served = new ServedVm();
  const { frontend } = served;
  const vm = { served, frontend };
  await frontend.tell(REQUEST.SET_PROTOCOL_FEATURES, u64s(bits(PROTOCOL_F.REPLY_ACK)));
  frontend.ackedProtocolFeatures = bits(PROTOCOL_F.REPLY_ACK);
  t.equal((await frontend.ask(REQUEST.GET_CONFIG, encodeConfig(0, new Uint8Array(16)))).length, 0);
  await withFds([createMemfd('ram', PAGE_BYTES)], async (fds) => {
    await refused(t, vm, 'ADD_MEM_REG', new Uint8Array(40), /without .*CONFIGURE_MEM_SLOTS/, fds);
    await refused(t, vm, 'SET_BACKEND_REQ_FD', NOTHING, /without .*BACKEND_REQ/, fds);
  });
  await refused(t, vm, 'REM_MEM_REG', new Uint8Array(40), /without .*CONFIGURE_MEM_SLOTS/);
  await refused(t, vm, 'SET_CONFIG', encodeConfig(0, u32s(1)), /without .*_CONFIG/);
  await refused(t, vm, 'SET_STATUS', u64s(4n), /without .*STATUS/);
  await refused(t, vm, 'RESET_DEVICE', NOTHING, /without .*RESET_DEVICE/);
  await refused(t, vm, 'SET_VRING_ENABLE', encodeVringState(0, 1), /without .*F_PROTOCOL_FEATURES/);
  t.same(served.saw('vm-ready'), []);
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend);
  await driver.inflate(pfns(4096, 1));
  await served.close();
  t.same(resources(), before);
});

contained(
  'questions about a ring that never ran are answered',
  {},
  async (t, { served, frontend, driver }) => {
    t.same(await frontend.ask(REQUEST.GET_VRING_BASE, encodeVringState(4, 0)), u32s(4, 0));
    t.equal(served.view.state, 'stopped');
    await driver.reset();
    t.same(await frontend.ask(REQUEST.GET_VRING_BASE, encodeVringState(3, 0)), u32s(3, 0));
    const again = await BalloonDriver.start(frontend);
    await again.inflate(pfns(4096, 3));
  },
);

// --- file descriptors ---

contained('fds on requests that take none', everything, async (t, vm) => {
  await withFds([createEventFd()], async (fds) => {
    for (const name of [
      'SET_FEATURES',
      'SET_VRING_NUM',
      'SET_VRING_ENABLE',
      'SET_CONFIG',
      'SET_OWNER',
    ] as const) {
      await refused(t, vm, name, new Uint8Array(PAYLOAD_BYTES[name] ?? 0), /with 1 fds, 0 expected/, fds);
    }
  });
});

contained('too few and too many fds', everything, async (t, vm) => {
  const region = encodeSingleRegion({ gpa: 4n << 30n, lenBytes: 4096n, userAddress: BEYOND, mmapOffset: 0n });
  await refused(t, vm, 'ADD_MEM_REG', region, /with 0 fds, 1 expected/);
  await refused(t, vm, 'SET_BACKEND_REQ_FD', NOTHING, /with 0 fds, 1 expected/);
  await refused(t, vm, 'SET_VRING_KICK', u64s(NO_FD), /without an fd/);
  await refused(t, vm, 'SET_VRING_KICK', u64s(0n), /without an fd/);
  await refused(t, vm, 'SET_VRING_CALL', u64s(0n), /disagree/);
  await refused(t, vm, 'SET_VRING_ERR', u64s(0n), /disagree/);
  await withFds([createMemfd('one', PAGE_BYTES), createMemfd('two', PAGE_BYTES)], async (fds) => {
    await refused(t, vm, 'ADD_MEM_REG', region, /with 2 fds, 1 expected/, fds);
    await refused(t, vm, 'SET_BACKEND_REQ_FD', NOTHING, /with 2 fds, 1 expected/, fds);
    await refused(t, vm, 'REM_MEM_REG', region, /with 2 fds, 0 to 1 expected/, fds);
    for (const name of ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
      await refused(t, vm, name, u64s(0n), /with 2 fds, 0 to 1 expected/, fds);
      await refused(t, vm, name, u64s(NO_FD), /without an fd|disagree/, fds.slice(0, 1));
    }
  });
  await refused(t, vm, 'SET_VRING_CALL', u64s(0x200n), /reserved bits/);
});

contained('more fds than a message may bring end the connection', {}, async (t, vm) => {
  await withFds(
    Array.from({ length: 9 }, () => createEventFd()),
    async (fds) => {
      await vm.frontend.sendRaw(encodeMessage(REQUEST.SET_OWNER, VERSION, NOTHING), fds);
      await dropped(t, vm, /more than 8 fds/);
    },
  );
});

contained('more fds than the kernel sends on end the connection or nothing', {}, async (t, vm) => {
  await withFds(
    Array.from({ length: 200 }, () => createEventFd()),
    async (fds) => {
      await vm.frontend.sendRaw(encodeMessage(REQUEST.SET_OWNER, VERSION, NOTHING), fds);
      await dropped(t, vm, /fds/);
    },
  );
});

contained('fds in instalments are counted together', {}, async (t, vm) => {
  await withFds(
    Array.from({ length: 5 }, () => createEventFd()),
    async (fds) => {
      const message = encodeMessage(REQUEST.SET_OWNER, VERSION, NOTHING);
      await vm.frontend.sendRaw(message.subarray(0, 6), fds);
      await vm.frontend.sendRaw(message.subarray(6), fds);
      await dropped(t, vm, /more than 8 fds/);
    },
  );
});

contained('fds that are no eventfds', {}, async (t, vm) => {
  const pipe = socketPair();
  await withFds([createMemfd('kick', PAGE_BYTES), ...pipe], async (fds) => {
    for (const fd of fds) {
      await refused(t, vm, 'SET_VRING_KICK', u64s(0n), /not an eventfd/, [fd]);
      await refused(t, vm, 'SET_VRING_CALL', u64s(0n), /not an eventfd/, [fd]);
      await refused(t, vm, 'SET_VRING_ERR', u64s(0n), /not an eventfd/, [fd]);
    }
  });
  await vm.driver.inflate(pfns(4096, 3));
});

contained('a backend channel that is no socket', {}, async (t, vm) => {
  const { served, frontend } = vm;
  // An eventfd can be watched, but not be read as a socket.
  for (const fd of [createMemfd('file', PAGE_BYTES), createEventFd(1)]) {
    await withFds([fd], (fds) => refused(t, vm, 'SET_BACKEND_REQ_FD', NOTHING, /ENOTSOCK/, fds));
  }
  served.vm.setTarget({ balloonBytes: MIB });
  await frontend.waitConfigChanges(1);
  t.pass('the one before it was kept');
  served.vm.setTarget({ balloonBytes: 0 });
  await vm.driver.inflate(pfns(4096, 3));
});

// --- memory ---

const GOOD: WireRegion = {
  gpa: 4n << 30n,
  lenBytes: BigInt(MIB),
  userAddress: 0x7e0000000000n,
  mmapOffset: 0n,
};

contained(
  'regions that cannot be',
  {},
  async (t, vm) => {
    await withFds([createMemfd('dimm', 2 * MIB)], async (fds) => {
      for (const [change, message] of [
        [{ gpa: 0n }, /overlaps the one at 0x0/],
        [{ gpa: BigInt(RAM_BYTES) - 4096n }, /overlaps/],
        [{ userAddress: 0x7f0000000000n }, /overlaps/],
        [{ userAddress: BEYOND - 4096n }, /overlaps/],
        [{ lenBytes: 0n }, /empty/],
        [{ gpa: (1n << 64n) - 4096n }, /wraps around/],
        [{ gpa: 1n << 52n }, /beyond 2\^52/],
        [{ userAddress: (1n << 64n) - 4096n }, /wraps around/],
        [{ lenBytes: (1n << 64n) - 4096n }, /wraps around|overlaps/],
        [{ lenBytes: 1n << 63n, userAddress: 1n << 62n, mmapOffset: 1n << 63n }, /wraps around/],
        [{ gpa: 0n, lenBytes: (1n << 44n) + 4096n }, /overlaps/],
        [{ lenBytes: (1n << 44n) + 4096n, userAddress: 1n << 44n }, /larger than 16 TiB/],
        [{ gpa: GOOD.gpa + 1n }, /not aligned/],
        [{ gpa: GOOD.gpa + 512n }, /not aligned/],
        [{ lenBytes: GOOD.lenBytes + 8n }, /not aligned/],
        [{ mmapOffset: 16n }, /not aligned/],
        [{ userAddress: GOOD.userAddress + 1n }, /not aligned/],
        [{ mmapOffset: BigInt(2 * MIB) }, /ends at 3145728 in a file of 2097152/],
        [{ lenBytes: BigInt(4 * MIB) }, /ends at 4194304 in a file of 2097152/],
        [{ mmapOffset: (1n << 64n) - 4096n }, /in a file of/],
      ] as const) {
        await refused(t, vm, 'ADD_MEM_REG', encodeSingleRegion({ ...GOOD, ...change }), message, fds);
      }
      t.equal(vm.served.view.ramBytes, RAM_BYTES, 'nothing was added');
      await vm.frontend.request(REQUEST.ADD_MEM_REG, encodeSingleRegion(GOOD), { needReply: true, fds });
      t.equal(vm.served.view.ramBytes, RAM_BYTES + MIB, 'but what is right is');
      await refused(t, vm, 'ADD_MEM_REG', encodeSingleRegion(GOOD), /overlaps/, fds);
    });
  },
  whereAdded,
);

contained(
  'regions of what cannot be mapped',
  {},
  async (t, vm) => {
    const folder = mkdtempSync(join(tmpdir(), 'balloond-'));
    const ram = createMemfd('read-only', PAGE_BYTES);
    const readOnly = openSync(`/proc/self/fd/${ram}`, 'r');
    const program = openSync(process.execPath, 'r');
    const directory = openSync(folder, 'r');
    const nothing = openSync('/dev/null', 'r+');
    await withFds(
      [createEventFd(), ...socketPair(), nothing, directory, program, ram, readOnly],
      async (fds) => {
        const page = encodeSingleRegion({ ...GOOD, lenBytes: 4096n });
        for (const fd of fds.filter((fd) => fd !== ram))
          await refused(t, vm, 'ADD_MEM_REG', page, /in a file of|EACCES|ENODEV|ENXIO/, [fd]);
      },
    );
    rmdirSync(folder);
  },
  whereAdded,
);

contained('SET_MEM_TABLE that is wrong changes nothing', {}, async (t, vm) => {
  const { served, frontend, driver } = vm;
  const other = { ...GOOD, gpa: 8n << 30n, userAddress: 0x7d0000000000n };
  await withFds([createMemfd('a', MIB), createMemfd('b', MIB)], async (fds) => {
    const table = (...regions: WireRegion[]): Uint8Array => encodeMemoryTable(regions);
    await refused(t, vm, 'SET_MEM_TABLE', table(GOOD, other), /2 regions and 1 fds/, fds.slice(0, 1));
    await refused(t, vm, 'SET_MEM_TABLE', table(GOOD), /1 regions and 2 fds/, fds);
    await refused(t, vm, 'SET_MEM_TABLE', table(GOOD), /1 regions and 0 fds/);
    await refused(t, vm, 'SET_MEM_TABLE', encodeMemoryTable([GOOD], 2), /cannot hold 2 regions/, fds);
    await refused(t, vm, 'SET_MEM_TABLE', encodeMemoryTable([], 9), /cannot hold 9 regions/);
    await refused(t, vm, 'SET_MEM_TABLE', encodeMemoryTable([], 0xffffffff), /cannot hold/);
    await refused(t, vm, 'SET_MEM_TABLE', table(GOOD, GOOD), /overlaps/, fds);
    await refused(t, vm, 'SET_MEM_TABLE', table(GOOD, { ...other, lenBytes: 0n }), /empty/, fds);
    await refused(t, vm, 'SET_MEM_TABLE', table(GOOD, { ...other, mmapOffset: 4096n }), /in a file of/, fds);
  });
  t.equal(served.view.ramBytes, RAM_BYTES);
  t.equal(served.saw('memory-mapped').length, 1);
  await driver.inflate(pfns(4096, 3));
  t.equal(frontend.takeRingErrors(0), 0);
});

contained(
  'REM_MEM_REG of a region that is not there',
  {},
  async (t, vm) => {
    const [region] = vm.frontend.ram.regions;
    if (region === undefined) throw new Error('a VM without memory');
    const there = describeRegion(region);
    for (const change of [
      { gpa: 4096n },
      { lenBytes: there.lenBytes - 4096n },
      { userAddress: there.userAddress + 4096n },
    ]) {
      await refused(
        t,
        vm,
        'REM_MEM_REG',
        encodeSingleRegion({ ...there, ...change }),
        /no such memory region/,
      );
    }
    await vm.driver.inflate(pfns(4096, 3));
  },
  whereAdded,
);

contained(
  'REM_MEM_REG: "the mmap offset is ignored", and an fd is closed',
  {},
  async (t, { served, frontend }) => {
    const file = frontend.ram.createFile(4 * MIB);
    const region = await frontend.addRegion({ gpa: 2 ** 32, lenBytes: MIB, file, fileOffset: MIB });
    t.equal(served.view.ramBytes, RAM_BYTES + MIB);
    const payload = encodeSingleRegion({ ...describeRegion(region), mmapOffset: 0n });
    await frontend.request(REQUEST.REM_MEM_REG, payload, { needReply: true, fds: [file.fd] });
    t.equal(served.view.ramBytes, RAM_BYTES);
  },
  whereAdded,
);

contained(
  'more regions than there are slots',
  {},
  async (t, vm) => {
    const file = createMemfd('slots', PAGE_BYTES);
    await withFds([file], async (fds) => {
      const region = (n: number): Uint8Array =>
        encodeSingleRegion({
          gpa: GOOD.gpa + BigInt(n * PAGE_BYTES),
          lenBytes: BigInt(PAGE_BYTES),
          userAddress: GOOD.userAddress + BigInt(n * PAGE_BYTES),
          mmapOffset: 0n,
        });
      for (let n = 1; n < 509; n++) {
        await vm.frontend.request(REQUEST.ADD_MEM_REG, region(n), { needReply: true, fds });
      }
      await refused(t, vm, 'ADD_MEM_REG', region(509), /more than 509/, fds);
    });
  },
  whereAdded,
);

contained(
  'the memory of a running ring is taken away',
  {},
  async (t, { served, frontend, driver }) => {
    const [region] = frontend.ram.regions;
    if (region === undefined) throw new Error('a VM without memory');
    await driver.inflate(pfns(4096, 3));
    await withFds([createMemfd('elsewhere', MIB)], async (fds) => {
      await frontend.request(REQUEST.ADD_MEM_REG, encodeSingleRegion(GOOD), { needReply: true, fds });
    });
    const payload = encodeSingleRegion(describeRegion(region));
    await frontend.request(REQUEST.REM_MEM_REG, payload, { needReply: true });
    t.match(served.saw('driver-error'), [{ message: /outside the memory that the VMM shares/ }]);
    t.equal(served.saw('driver-error').length, driver.queueNumbers.size, 'each ring');
    for (const ring of driver.queueNumbers.values())
      t.equal(frontend.takeRingErrors(ring), Number(frontend.hearsErrors));
    t.match(served.view.verdict, /ring \d is stopped/);
    const later = createEventFd(0);
    await frontend.tell(REQUEST.SET_VRING_ERR, u64s(0n), [later]);
    await frontend.ask(REQUEST.GET_FEATURES);
    t.equal(drainEvent(later), 1, 'whoever comes to listen later hears of it, too');
    closeFd(later);
    await frontend.request(REQUEST.ADD_MEM_REG, payload, { needReply: true, fds: [region.file.fd] });
    await driver.reset();
    const again = await BalloonDriver.start(frontend);
    await again.inflate(pfns(4096, 3));
    t.ok(frontend.ram.pageIsZero(4096), 'after a reload all is well');
  },
  whereAdded,
);

contained('all memory of a running device is taken away', {}, async (t, { served, frontend }) => {
  await frontend.request(REQUEST.SET_MEM_TABLE, encodeMemoryTable([]), { needReply: true });
  t.equal(served.view.ramBytes, 0);
  t.equal(frontend.takeRingErrors(0), Number(frontend.hearsErrors));
  t.match(served.view.verdict, /shares no guest memory/);
});

const TABLE: Options = {
  frontend: { protocolFeatures: bits(PROTOCOL_F.REPLY_ACK, PROTOCOL_F.CONFIG, PROTOCOL_F.MQ) },
};

contained(
  'the same table again keeps rings and ledger',
  TABLE,
  async (t, { served, frontend, driver }) => {
    await served.vm.setInhibited('to see the ledger');
    await driver.inflate(pfns(4096, 100));
    const { regions } = frontend.ram;
    const table = encodeMemoryTable(regions.map(describeRegion));
    const fds = regions.map(({ file }) => file.fd);
    await frontend.request(REQUEST.SET_MEM_TABLE, table, { needReply: true, fds });
    t.equal(served.view.balloon.pendingBytes, 100 * PAGE_BYTES);
    await driver.inflate(pfns(4196, 100));
    t.equal(served.view.balloon.pendingBytes, 200 * PAGE_BYTES);
    const added = await frontend.addRegion({ gpa: 2 ** 32, lenBytes: MIB });
    await frontend.getConfig();
    t.equal(served.view.ramBytes, RAM_BYTES + MIB);
    await driver.inflate([2 ** 20]);
    t.equal(served.view.balloon.pendingBytes, 201 * PAGE_BYTES);
    await frontend.removeRegion(added);
    await frontend.getConfig();
    t.equal(served.view.balloon.pendingBytes, 200 * PAGE_BYTES, 'with the region goes what it owed');
    t.ok(await served.device.refreshStats(5000), 'the held statistics buffer is seen again');
    t.same(served.saw('driver-error'), []);
  },
  whereTold,
);

contained(
  'the same table of another file starts a ledger of its own',
  TABLE,
  async (t, { served, frontend, driver }) => {
    await served.vm.setInhibited('to see the ledger');
    await driver.inflate(pfns(4096, 100));
    const copy = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
    // The guest's rings move with its memory, as after a migration of the backing file.
    copy.write(0, frontend.ram.read(0, 4 * MIB));
    const table = encodeMemoryTable(copy.regions.map(describeRegion));
    const fds = copy.regions.map(({ file }) => file.fd);
    await frontend.request(REQUEST.SET_MEM_TABLE, table, { needReply: true, fds });
    t.equal(served.view.balloon.pendingBytes, 0);
    t.same(served.saw('driver-error'), []);
    copy.close();
  },
  whereTold,
);

contained('regions come and go under a busy ring', {}, async (t, { served, frontend, driver }) => {
  let inflated = 0;
  const over = new AbortController();
  const work = (async () => {
    while (!over.signal.aborted) {
      await driver.tellPfns('inflate', pfns(4096 + (inflated % 1000), 200));
      inflated++;
    }
  })();
  for (let n = 0; n < 50; n++) {
    await frontend.removeRegion(await frontend.addRegion({ gpa: 2 ** 32, lenBytes: MIB }));
  }
  over.abort();
  await work;
  await frontend.getConfig();
  t.ok(inflated > 0);
  t.same(served.saw('driver-error'), []);
  t.equal(served.view.ramBytes, RAM_BYTES);
});

// --- rings ---

contained('rings that do not exist', {}, async (t, vm) => {
  const addresses = { descriptors: BEYOND, used: BEYOND, available: BEYOND };
  for (const ring of [7, 255, 0x7fffffff, 0xffffffff]) {
    const message = new RegExp(`ring ${ring} of a device with 7 queues`);
    for (const name of ['SET_VRING_NUM', 'SET_VRING_BASE', 'SET_VRING_ENABLE'] as const) {
      await refused(t, vm, name, encodeVringState(ring, 1), message);
    }
    await refused(t, vm, 'SET_VRING_ADDR', encodeVringAddress(ring, addresses), message);
    if (ring > 255) continue;
    for (const name of ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
      await withFds([createEventFd()], (fds) => refused(t, vm, name, u64s(BigInt(ring)), message, fds));
    }
  }
  await vm.frontend.sendRaw(encodeMessage(REQUEST.GET_VRING_BASE, VERSION, encodeVringState(7, 0)));
  await dropped(t, vm, /GET_VRING_BASE.*ring 7/);
});

contained('settings of a ring that runs', {}, async (t, vm) => {
  const addresses = { descriptors: BEYOND, used: BEYOND, available: BEYOND };
  await refused(t, vm, 'SET_VRING_NUM', encodeVringState(0, 64), /SET_VRING_NUM for ring 0 while it runs/);
  await refused(t, vm, 'SET_VRING_BASE', encodeVringState(1, 0), /SET_VRING_BASE for ring 1 while it runs/);
  await refused(t, vm, 'SET_VRING_ADDR', encodeVringAddress(0, addresses), /SET_VRING_ADDR for ring 0 while/);
  await refused(t, vm, 'SET_VRING_ENABLE', encodeVringState(0, 2), /neither 0 nor 1/);
  await vm.driver.inflate(pfns(4096, 3));
});

contained('features that were not offered, or change under way', everything, async (t, vm) => {
  const { frontend } = vm;
  const acked = frontend.ackedFeatures | bits(VHOST_USER_F_PROTOCOL_FEATURES);
  await refused(t, vm, 'SET_FEATURES', u64s(acked | bits(6)), /not offered: bit-6/);
  await refused(t, vm, 'SET_FEATURES', u64s((1n << 64n) - 1n), /not offered/);
  await refused(t, vm, 'SET_FEATURES', u64s(acked & ~bits(F_EVENT_IDX)), /running device/);
  await refused(t, vm, 'SET_PROTOCOL_FEATURES', u64s(bits(12)), /INFLIGHT_SHMFD/);
  await refused(t, vm, 'SET_PROTOCOL_FEATURES', u64s(bits(63)), /bit-63/);
  await refused(t, vm, 'SET_STATUS', u64s(0x100n), /status 0x100/);
  // A migration begins and ends: bit 26 may come and go.
  for (const features of [acked | bits(26), acked]) {
    await frontend.request(REQUEST.SET_FEATURES, u64s(features), { needReply: true });
  }
  await vm.driver.inflate(pfns(4096, 3));
});

contained('queue sizes', {}, async (t, vm) => {
  await vm.driver.reset();
  for (const size of [0, 32769, 65536, 0xffffffff]) {
    await refused(t, vm, 'SET_VRING_NUM', encodeVringState(0, size), new RegExp(`queue size ${size}`));
  }
});

/** Starts ring 0 with something else than it should have; the driver's others are as they should be. */
async function startWith(
  { served, frontend, driver }: Running,
  change: { size?: number; descriptors?: bigint; available?: bigint; used?: bigint },
): Promise<void> {
  const { areas, size } = driver.ring('inflate');
  await frontend.stop();
  await frontend.tell(REQUEST.SET_VRING_NUM, encodeVringState(0, change.size ?? size));
  await frontend.tell(
    REQUEST.SET_VRING_ADDR,
    encodeVringAddress(0, {
      descriptors: change.descriptors ?? frontend.ram.userAddress(areas.descriptorGpa, 1),
      available: change.available ?? frontend.ram.userAddress(areas.driverGpa, 1),
      used: change.used ?? frontend.ram.userAddress(areas.deviceGpa, 1),
    }),
  );
  for (const { index, ring } of frontend.queues) {
    await frontend.tell(REQUEST.SET_VRING_KICK, u64s(BigInt(index)), [ring.kickFd]);
  }
  for (let ring = 0; ring < 5; ring++) {
    await frontend.tell(REQUEST.SET_VRING_ENABLE, encodeVringState(ring, 1));
  }
  await served.until((view) => view.state === 'running', 'the device runs');
  await frontend.ask(REQUEST.GET_FEATURES);
}

for (const [what, change, message] of [
  ['descriptors outside', { descriptors: BEYOND }, /descriptors of 1024 bytes .* outside/],
  ['descriptors that straddle the end', { descriptors: BEYOND - 1008n }, /descriptors/],
  ['available ring outside', { available: 0n }, /driver area/],
  ['available ring that straddles the end', { available: BEYOND - 132n }, /driver area/],
  ['used ring outside', { used: (1n << 64n) - 16n }, /device area/],
  ['used ring that straddles the end', { used: BEYOND - 512n }, /device area/],
  ['descriptors not aligned to 16', { descriptors: 0x7f0000100008n }, /aligned to 16/],
  ['available ring not aligned to 2', { available: 0x7f0000100001n }, /aligned to 2/],
  ['used ring not aligned to 4', { used: 0x7f0000100002n }, /aligned to 4/],
  ['a size that is no power of 2', { size: 48 }, /queue size 48 is not a power of 2/],
] as const) {
  contained(`a ring with ${what}`, {}, async (t, vm) => {
    const { served, frontend, driver } = vm;
    frontend.takeRingErrors(0);
    await startWith(vm, change);
    t.match(served.saw('driver-error'), [{ message, fields: { ring: 0 } }]);
    t.equal(served.saw('driver-error').length, 1, 'that ring alone');
    t.equal(frontend.takeRingErrors(0), Number(frontend.hearsErrors));
    t.match(served.view.verdict, /^ring 0 is stopped/);
    await driver.tellPfns('deflate', [4096]);
    await driver.reset();
    const again = await BalloonDriver.start(frontend);
    await again.inflate(pfns(4096, 3));
    t.equal(served.view.verdict, null);
  });
}

// --- the dirty log ---

contained('a dirty log that cannot be', everything, async (t, vm) => {
  await withFds([createMemfd('log', PAGE_BYTES)], async (fds) => {
    await vm.frontend.sendRaw(encodeMessage(REQUEST.SET_LOG_BASE, VERSION, u64s(0n, 0n)), fds);
    await dropped(t, vm, /SET_LOG_BASE.*0 bytes/);
  });
});

contained('a dirty log larger than its file', everything, async (t, vm) => {
  await withFds([createMemfd('log', PAGE_BYTES)], async (fds) => {
    await vm.frontend.sendRaw(encodeMessage(REQUEST.SET_LOG_BASE, VERSION, u64s(BigInt(MIB), 0n)), fds);
    await dropped(t, vm, /SET_LOG_BASE.*longer than its file/);
  });
});

contained('a dirty log without a file', everything, async (t, vm) => {
  await vm.frontend.sendRaw(encodeMessage(REQUEST.SET_LOG_BASE, VERSION, u64s(4096n, 0n)));
  await dropped(t, vm, /SET_LOG_BASE with 0 fds, 1 expected/);
});

/** Each is opened anew. */
const NO_LOGS: Readonly<Record<string, () => number[]>> = {
  'an eventfd': () => [createEventFd()],
  'a socket': () => [...socketPair()],
  'a device': () => [openSync('/dev/zero', 'r+')],
  'a folder': () => [openSync(tmpdir(), 'r')],
  'a program': () => [openSync(process.execPath, 'r')],
  'memory that is read-only': () => {
    const log = createMemfd('log', PAGE_BYTES);
    return [openSync(`/proc/self/fd/${log}`, 'r'), log];
  },
};
for (const [what, open] of Object.entries(NO_LOGS)) {
  contained(`a dirty log that is ${what}`, everything, async (t, vm) => {
    await withFds(open(), async ([fd = -1]) => {
      await vm.frontend.sendRaw(encodeMessage(REQUEST.SET_LOG_BASE, VERSION, u64s(4096n, 0n)), [fd]);
      await dropped(t, vm, /SET_LOG_BASE.*(longer than its file|EACCES|ENODEV)/);
    });
  });
}

contained('a dirty log that ends before what is written', everything, async (t, vm) => {
  const { served, frontend, driver } = vm;
  const { areas } = driver.ring('inflate');
  await withFds([createMemfd('log', PAGE_BYTES)], async ([fd = -1]) => {
    // One byte is 8 pages, and the rings are beyond them.
    await frontend.ask(REQUEST.SET_LOG_BASE, u64s(1n, 0n), [fd]);
    const addresses = {
      descriptors: frontend.ram.userAddress(areas.descriptorGpa, 16),
      used: frontend.ram.userAddress(areas.deviceGpa, 4),
      available: frontend.ram.userAddress(areas.driverGpa, 4),
      flags: 1,
      log: BigInt(areas.deviceGpa),
    };
    await frontend.tell(REQUEST.SET_VRING_ADDR, encodeVringAddress(0, addresses));
    for (let n = 0; n < 3; n++) await driver.inflate(pfns(4096 + n, 1));
    t.match(served.saw('log-too-short'), [
      {
        fields: { request: 'SET_LOG_BASE' },
        message: /dirty log of 1 bytes ends before guest page 0x.*: cancel the migration/,
      },
    ]);
    t.equal(served.saw('log-too-short').length, 1, 'said once');
    t.same(served.saw('frontend-error'), [], 'no argument of the VMM is wrong');
    const bytes = Buffer.alloc(PAGE_BYTES);
    readSync(fd, bytes, 0, PAGE_BYTES, 0);
    t.ok(bytes.equals(Buffer.alloc(PAGE_BYTES)), 'nothing is written behind its end');
    t.equal(served.view.state, 'running');
  });
});

contained('a dirty log is replaced and freed, and answered by its own words', everything, async (t, vm) => {
  for (let n = 0; n < 3; n++) {
    await withFds([createMemfd('log', PAGE_BYTES)], async (fds) => {
      const where = u64s(4096n, 0n);
      t.same(await vm.frontend.ask(REQUEST.SET_LOG_BASE, where, fds), where);
    });
  }
});

// --- the configuration space ---

contained('GET_CONFIG is answered exactly, at any offset and length', {}, async (t, { served, frontend }) => {
  served.vm.setTarget({ balloonBytes: RAM_BYTES, force: true });
  const space = await frontend.getConfig(0, 256);
  for (const offset of [0, 1, 3, 4, 7, 8, 12, 15, 16, 17, 100, 255, 256, 4096, 0x7fffffff, 0xffffffff]) {
    for (const lenBytes of [0, 1, 2, 3, 4, 5, 8, 16, 17, 60, 255, 256]) {
      const bytes = await frontend.getConfig(offset, lenBytes);
      const wanted = Uint8Array.from({ length: lenBytes }, (_, n) => space[offset + n] ?? 0);
      if (Buffer.compare(bytes, wanted) !== 0) t.fail(`${lenBytes} bytes at ${offset}`);
    }
  }
  t.same([...space.subarray(0, 4)], [...u32s(RAM_BYTES / PAGE_BYTES)]);
  t.same(frontend.protocolViolations, []);
});

contained('config accesses that cannot be answered', {}, async (t, vm) => {
  const { served, frontend } = vm;
  for (const payload of [
    encodeConfig(0, new Uint8Array(257)),
    encodeConfig(0, NOTHING, 0, 4),
    encodeConfig(0, new Uint8Array(8), 0, 4),
    encodeConfig(0, new Uint8Array(4), 0, 0xffffffff),
    encodeConfig(0, NOTHING).subarray(0, 11),
  ]) {
    const refusals = served.saw('frontend-error').length;
    t.equal((await frontend.ask(REQUEST.GET_CONFIG, payload)).length, 0);
    t.match(served.saw('frontend-error').slice(refusals), [{ fields: { request: 'GET_CONFIG' } }]);
    await refused(t, vm, 'SET_CONFIG', payload, /config access/);
  }
});

contained(
  'SET_CONFIG takes whole fields of the driver, and nothing else',
  {},
  async (t, { served, frontend }) => {
    const before = await frontend.getConfig();
    const set = (offset: number, bytes: Uint8Array): Promise<unknown> =>
      frontend.request(REQUEST.SET_CONFIG, encodeConfig(offset, bytes), { needReply: true });
    await set(0, u32s(77));
    await set(5, u32s(77));
    await set(4, Uint8Array.of(1, 2, 3));
    await set(8, u32s(77));
    await set(16, u32s(77));
    await set(0xffffffff, u32s(77));
    await set(0, NOTHING);
    t.same(await frontend.getConfig(), before);
    await set(4, u32s(77));
    t.equal(served.view.balloon.actualBytes, 77 * PAGE_BYTES);
    await set(1, new Uint8Array(255));
    t.equal(served.view.balloon.actualBytes, 0);
  },
);

// --- fds of rings that are replaced while they run ---

contained('eventfds may be replaced at any time', {}, async (t, { frontend, driver }) => {
  // All that was told is done when the next question is answered.
  await frontend.ask(REQUEST.GET_FEATURES);
  const before = resources().fds;
  const { callFd, kickFd } = driver.ring('inflate');
  for (let n = 0; n < 20; n++) {
    await frontend.tell(REQUEST.SET_VRING_CALL, u64s(0n), [callFd]);
    await frontend.tell(REQUEST.SET_VRING_KICK, u64s(0n), [kickFd]);
  }
  await driver.inflate(pfns(4096, 300));
  await frontend.ask(REQUEST.GET_FEATURES);
  t.equal(resources().fds, before, 'the old ones are closed');
  await frontend.tell(REQUEST.SET_VRING_CALL, u64s(NO_FD));
  await frontend.tell(REQUEST.SET_VRING_ERR, u64s(NO_FD));
  await frontend.ask(REQUEST.GET_FEATURES);
  t.equal(resources().fds, before - (frontend.hearsErrors ? 2 : 1));
});

// QEMU looks at its own eventfd for the last time, and only then names the guest's: what went to the first meanwhile is
// seen by nobody.
contained(
  'an answer that went to the eventfd before this one is told to this one',
  {},
  async (t, { frontend, driver }) => {
    const index = BigInt(driver.queueNumbers.get('inflate') ?? 0);
    const masked = createEventFd(0);
    await frontend.tell(REQUEST.SET_VRING_CALL, u64s(index), [masked]);
    await frontend.ask(REQUEST.GET_FEATURES);
    const inflated = driver.inflate(pfns(4096, 1));
    await eventually(
      () => drainEvent(masked) > 0,
      () => 'the ring was not answered',
    );
    closeFd(masked);
    await frontend.tell(REQUEST.SET_VRING_CALL, u64s(index), [driver.ring('inflate').callFd]);
    await inflated;
    t.pass('the driver heard of it');
  },
);
