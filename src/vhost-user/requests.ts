import { MAX_FDS } from '../../protocol/vhost-user/header.js';
import {
  configAccess,
  empty,
  encodeConfig,
  encodeLogRegion,
  encodeU64,
  encodeVringState,
  logRegion,
  memoryTable,
  PayloadError,
  singleRegion,
  stateTransfer,
  u64,
  vringAddress,
  vringFd,
  vringState,
  type Codec,
  type RegionDescription,
  type LogRegion,
  type VringFd,
  type VringState,
} from '../../protocol/vhost-user/payloads.js';
import {
  FrontendRequest,
  ProtocolFeature,
  VhostFeature,
  type FrontendRequestName,
} from '../../protocol/vhost-user/requests.js';
import { featureMask, featureNames, hasFeature } from '../../protocol/virtio/features.js';
import { FrontendError } from '../memory/errors.js';
import { MAX_MEM_SLOTS } from '../memory/guest-memory.js';
import type { Message } from './connection.js';
import { adopt, adoptOptional, type FdBag } from './fd-bag.js';
import { PROTOCOL_FEATURES } from './offered.js';
import type { RequestContext } from './request-context.js';
import type { Direction } from './state-transfer.js';

/** What became of a request. With no reply and no error it is acknowledged where the frontend asked for that. */
interface Outcome {
  name: string;
  reply: Uint8Array | null;
  error: Error | null;
}

interface Expectation {
  /** How many fds the message may bring; none where nothing is said. */
  fds?: readonly [least: number, most: number];
  /** Protocol feature that must have been negotiated. */
  needs?: number;
  /** It takes rings or memory away: the device must not be at work on them. 'ends': it stops the device; 'ends-by-0': if it says 0. */
  quiet?: true | 'ends' | 'ends-by-0';
  /** It brings memory. */
  memory?: true;
  /** Nothing that is written down of the session changes by it. */
  keeps?: true;
}

/** A request whose answer has a payload: it cannot be refused but by `refusal`, or by ending the connection. */
interface Question<T> extends Expectation {
  answer(session: RequestContext, payload: T, fds: FdBag): Uint8Array;
  refusal?: () => Uint8Array;
}

/** A request that is acknowledged where the frontend asked for that; `then` is done after the acknowledgement. */
interface Command<T> extends Expectation {
  act(session: RequestContext, payload: T, fds: FdBag): void;
  then?(session: RequestContext, payload: T): void;
}

interface Row {
  name: FrontendRequestName;
  expects: Expectation;
  refusal: Uint8Array | null;
  isQuestion: boolean;
  serve(session: RequestContext, message: Message): Uint8Array | null;
  then(session: RequestContext, message: Message): void;
}

function question<T>(name: FrontendRequestName, codec: Codec<T>, options: Question<T>): [number, Row] {
  return [
    FrontendRequest[name],
    {
      name,
      expects: options,
      isQuestion: true,
      refusal: options.refusal?.() ?? null,
      serve: (session, { payload, fds }) => options.answer(session, codec.decode(payload), fds),
      then: () => undefined,
    },
  ];
}

function command<T>(name: FrontendRequestName, codec: Codec<T>, options: Command<T>): [number, Row] {
  return [
    FrontendRequest[name],
    {
      name,
      expects: options,
      isQuestion: false,
      refusal: null,
      serve: (session, { payload, fds }) => {
        options.act(session, codec.decode(payload), fds);
        return null;
      },
      then: (session, { payload }) => options.then?.(session, codec.decode(payload)),
    },
  ];
}

const {
  VHOST_USER_PROTOCOL_F_MQ: MQ,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD: LOG_SHMFD,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ: BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG: CONFIG,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE: RESET,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS: MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_STATUS: STATUS,
  VHOST_USER_PROTOCOL_F_DEVICE_STATE: DEVICE_STATE,
} = ProtocolFeature;

/** Of an answer to SET_DEVICE_STATE_FD: it brings no other fd. */
const NO_FD = 0x100n;

/**
 * Every request that is served, grouped by what it is about. Handlers validate, then change: one that throws has
 * changed nothing. Requests of the specification that are not here belong to features that are not offered, and
 * are refused by their name.
 */
const REQUESTS: ReadonlyMap<number, Row> = new Map<number, Row>([
  question('GET_FEATURES', empty, { keeps: true, answer: (session) => encodeU64(session.offeredFeatures) }),
  command('SET_FEATURES', u64, { act: setFeatures }),
  question('GET_PROTOCOL_FEATURES', empty, { keeps: true, answer: () => encodeU64(PROTOCOL_FEATURES) }),
  command('SET_PROTOCOL_FEATURES', u64, { act: setProtocolFeatures }),
  command('SET_OWNER', empty, { quiet: true, act: (session) => session.begin() }),
  // vhost-user: "recommended that back-ends either ignore this message, or use it to disable all rings"
  command('RESET_OWNER', empty, { quiet: 'ends', act: (session) => session.stop() }),

  question('GET_MAX_MEM_SLOTS', empty, {
    keeps: true,
    needs: MEM_SLOTS,
    answer: () => encodeU64(BigInt(MAX_MEM_SLOTS)),
  }),
  command('SET_MEM_TABLE', memoryTable, {
    quiet: true,
    memory: true,
    fds: [0, MAX_FDS],
    act: setMemoryTable,
  }),
  command('ADD_MEM_REG', singleRegion, { needs: MEM_SLOTS, memory: true, fds: [1, 1], act: addRegion }),
  command('REM_MEM_REG', singleRegion, { quiet: true, needs: MEM_SLOTS, fds: [0, 1], act: removeRegion }),

  question('SET_LOG_BASE', logRegion, { needs: LOG_SHMFD, fds: [1, 1], answer: setLogBase }),
  // The eventfd only says that the log was written; the frontend reads the log by its own clock.
  command('SET_LOG_FD', empty, { fds: [0, 1], act: () => undefined }),

  command('SET_VRING_NUM', vringState, {
    act: (session, { index, num }) => session.ring(index).setSize(num),
  }),
  command('SET_VRING_ADDR', vringAddress, {
    act: (session, address) => session.ring(address.index).setAddress(address),
  }),
  command('SET_VRING_BASE', vringState, {
    act: (session, { index, num }) => session.ring(index).setBase(num),
  }),
  question('GET_VRING_BASE', vringState, { quiet: 'ends', answer: getVringBase }),
  command('SET_VRING_KICK', vringFd, { fds: [0, 1], act: setKick, then: (session) => session.start() }),
  command('SET_VRING_CALL', vringFd, { fds: [0, 1], act: setCall }),
  command('SET_VRING_ERR', vringFd, { fds: [0, 1], act: setErr }),
  question('GET_QUEUE_NUM', empty, {
    keeps: true,
    needs: MQ,
    answer: (session) => encodeU64(BigInt(session.vrings.length)),
  }),
  command('SET_VRING_ENABLE', vringState, {
    quiet: 'ends-by-0',
    act: setEnable,
    then: (session, { num }) => {
      if (num === 1) session.start();
    },
  }),

  command('SET_BACKEND_REQ_FD', empty, {
    needs: BACKEND_REQ,
    fds: [1, 1],
    act: (session, _, fds) => adopt(fds, (fd) => session.setChannel(fd)),
  }),
  question('GET_CONFIG', configAccess, {
    keeps: true,
    needs: CONFIG,
    // vhost-user: "back-end uses zero length of payload to indicate an error"
    refusal: () => new Uint8Array(0),
    answer: (session, { offset, sizeBytes, flags }) =>
      encodeConfig(offset, flags, session.device.readConfig(offset, sizeBytes)),
  }),
  command('SET_CONFIG', configAccess, {
    keeps: true,
    needs: CONFIG,
    act: (session, { offset, bytes }) => session.device.writeConfig(offset, bytes),
  }),
  command('RESET_DEVICE', empty, { quiet: 'ends', needs: RESET, act: (session) => session.reset() }),
  command('SET_STATUS', u64, { quiet: 'ends-by-0', needs: STATUS, act: setStatus }),
  question('GET_STATUS', empty, {
    keeps: true,
    needs: STATUS,
    answer: (session) => encodeU64(BigInt(session.status)),
  }),
  question('SET_DEVICE_STATE_FD', stateTransfer, {
    keeps: true,
    needs: DEVICE_STATE,
    fds: [1, 1],
    refusal: () => encodeU64(NO_FD | 1n),
    answer: transferState,
  }),
  question('CHECK_DEVICE_STATE', empty, {
    keeps: true,
    needs: DEVICE_STATE,
    refusal: () => encodeU64(1n),
    answer: (session) => {
      session.transfer.check();
      return encodeU64(0n);
    },
  }),
]);

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(FrontendRequest).map(([name, request]) => [request, name]),
);

/** Whether the request is one that the device must not be at work for. */
export function needsQuiet(request: number): boolean {
  return REQUESTS.get(request)?.expects.quiet !== undefined;
}

/** Whether the request stops a device that runs, unless it is refused. */
export function endsDevice(request: number, payload: Uint8Array): boolean {
  const quiet = REQUESTS.get(request)?.expects.quiet;
  // SET_VRING_ENABLE names a ring before the value.
  const value = payload.subarray(request === FrontendRequest.SET_VRING_ENABLE ? 4 : 0);
  return quiet === 'ends' || (quiet === 'ends-by-0' && value.every((byte) => byte === 0));
}

/** Whether the session's record may be another one after the request. */
export function changesRecord(request: number): boolean {
  return REQUESTS.get(request)?.expects.keeps !== true;
}

/**
 * Serves one message: `answer` is called once with what became of it, before what follows from it is begun.
 * Throws FrontendError when the frontend waits for an answer that cannot be given.
 */
export function serveRequest(
  session: RequestContext,
  message: Message,
  answer: (outcome: Outcome) => void,
): void {
  const entry = REQUESTS.get(message.request);
  const name = NAMES.get(message.request) ?? `request ${message.request}`;
  if (entry === undefined) {
    answer({ name, reply: null, error: new FrontendError(`${name} is not supported and was not offered`) });
    return;
  }
  let reply: Uint8Array | null;
  try {
    checkExpectation(session, entry, message);
    reply = entry.serve(session, message);
  } catch (error) {
    const refused = asRefusal(name, error);
    if (entry.expects.memory === true) session.observer.memoryRefused(refused, regionOf(message));
    if (entry.isQuestion && entry.refusal === null) {
      throw new FrontendError(`${name} cannot be answered: ${refused.message}`);
    }
    answer({ name, reply: entry.refusal, error: refused });
    return;
  }
  answer({ name, reply, error: null });
  entry.then(session, message);
}

/** The guest address of the one region that the message brings; null: it brings more, or none that can be read. */
function regionOf({ request, payload }: Message): bigint | null {
  if (request !== FrontendRequest.ADD_MEM_REG) return null;
  try {
    return singleRegion.decode(payload).gpa;
  } catch {
    return null;
  }
}

function asRefusal(name: string, error: unknown): Error {
  if (error instanceof PayloadError) return new FrontendError(`${name}: ${error.message}`);
  return error instanceof Error ? error : new Error(String(error));
}

function checkExpectation(session: RequestContext, { name, expects }: Row, message: Message): void {
  if (expects.needs !== undefined && !session.negotiated(expects.needs)) {
    const [feature] = featureNames(featureMask(expects.needs), ProtocolFeature);
    throw new FrontendError(`${name} without ${feature ?? 'its feature'}`);
  }
  const [least, most] = expects.fds ?? [0, 0];
  if (message.fds.count < least || message.fds.count > most) {
    const range = least === most ? `${least}` : `${least} to ${most}`;
    throw new FrontendError(`${name} with ${message.fds.count} fds, ${range} expected`);
  }
}

function setFeatures(session: RequestContext, features: bigint): void {
  const unknown = features & ~session.offeredFeatures;
  if (unknown !== 0n) {
    throw new FrontendError(
      `SET_FEATURES acks features that were not offered: ${featureNames(unknown).join(', ')}`,
    );
  }
  const logging = featureMask(VhostFeature.VHOST_F_LOG_ALL);
  // A migrating frontend switches logging on and off while rings run; nothing else may change under them.
  if (session.running && (features & ~logging) !== (session.features & ~logging)) {
    throw new FrontendError('SET_FEATURES changes features of a running device');
  }
  const changed = features !== session.features;
  session.features = features;
  if (session.running) return;
  session.device.setFeatures(features);
  if (changed) session.observer.featuresAcked(features);
  // vhost-user: "if VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the
  // enabled state"
  if (!hasFeature(features, VhostFeature.VHOST_USER_F_PROTOCOL_FEATURES)) {
    for (const vring of session.vrings) vring.enabled = true;
  }
}

function setProtocolFeatures(session: RequestContext, features: bigint): void {
  const unknown = features & ~PROTOCOL_FEATURES;
  if (unknown !== 0n) {
    throw new FrontendError(
      `SET_PROTOCOL_FEATURES sets features that were not offered: ${featureNames(unknown, ProtocolFeature).join(', ')}`,
    );
  }
  session.protocolFeatures = features;
}

function setMemoryTable(session: RequestContext, regions: RegionDescription[], fds: FdBag): void {
  if (fds.count !== regions.length) {
    throw new FrontendError(`SET_MEM_TABLE with ${regions.length} regions and ${fds.count} fds`);
  }
  for (const region of regions) inspect(session, region);
  session.changeMemory(null, () => {
    session.memory.replace(
      regions,
      regions.map(() => fds.take()),
    );
  });
}

function addRegion(session: RequestContext, region: RegionDescription, fds: FdBag): void {
  inspect(session, region);
  session.memory.add(region, fds.take());
  session.observer.memoryChanged(region.gpa);
}

function removeRegion(session: RequestContext, region: RegionDescription): void {
  session.changeMemory(region.gpa, () => session.memory.remove(region));
}

function inspect(session: RequestContext, region: RegionDescription): void {
  const reason = session.observer.inspectRegion(region);
  if (reason !== null) throw new FrontendError(reason);
}

function setLogBase(session: RequestContext, region: LogRegion, fds: FdBag): Uint8Array {
  adopt(fds, (fd) => session.setDirtyLog(region, fd));
  // QEMU takes any payload; rust-vmm waits for one of the request's size, and takes none that differs.
  return encodeLogRegion(region);
}

function getVringBase(session: RequestContext, { index }: VringState): Uint8Array {
  const vring = session.ring(index);
  session.stop();
  return encodeVringState({ index, num: vring.stop() });
}

function transferState(session: RequestContext, direction: Direction, fds: FdBag): Uint8Array {
  if (session.running) throw new FrontendError(`SET_DEVICE_STATE_FD (${direction}) while the device runs`);
  adopt(fds, (fd) => {
    if (direction === 'save') session.transfer.save(fd, session.device.saveState());
    else session.transfer.load(fd);
  });
  return encodeU64(NO_FD);
}

function setKick(session: RequestContext, { index, noFd }: VringFd, fds: FdBag): void {
  const vring = session.ring(index);
  if (noFd || fds.count === 0) {
    throw new FrontendError(`SET_VRING_KICK for ring ${index} without an fd: polling is not supported`);
  }
  adopt(fds, (fd) => vring.setKick(fd));
}

function setCall(session: RequestContext, payload: VringFd, fds: FdBag): void {
  const vring = session.ring(payload.index);
  adoptOptional(payload, fds, (fd) => vring.setCall(fd));
  session.queueSeen();
}

function setErr(session: RequestContext, payload: VringFd, fds: FdBag): void {
  const vring = session.ring(payload.index);
  adoptOptional(payload, fds, (fd) => vring.setErr(fd));
}

function setEnable(session: RequestContext, { index, num }: VringState): void {
  const vring = session.ring(index);
  if (num > 1) throw new FrontendError(`SET_VRING_ENABLE with ${num}, neither 0 nor 1`);
  if (!hasFeature(session.features, VhostFeature.VHOST_USER_F_PROTOCOL_FEATURES)) {
    throw new FrontendError('SET_VRING_ENABLE without VHOST_USER_F_PROTOCOL_FEATURES');
  }
  vring.enabled = num === 1;
  if (num === 0) session.stop();
}

function setStatus(session: RequestContext, status: bigint): void {
  if (status > 0xffn) throw new FrontendError(`device status 0x${status.toString(16)}`);
  session.status = Number(status);
  // virtio 1.3, 2.1: "The driver ... writes 0 to reset the device"
  if (session.status === 0) session.stop();
}
