/**
 * System calls that Node lacks, typed: the only folder that loads the helper (src/native). native (this file) loads it and
 * types its exports; every other file wraps a few of these: socket, fd, eventfd, poller, mapping, memfd, file, discard and
 * resident for what is served; clock for all times; line-writer and print for all that a process says. Everybody calls this folder, which
 * calls nobody. A call that fails is a SystemError (errors) with `code` and `syscall`.
 */
import { createRequire } from 'node:module';
import { PACKAGE } from '../version.js';
import { HelperError } from './errors.js';

declare const mappingBrand: unique symbol;
declare const watchBrand: unique symbol;
declare const behindBrand: unique symbol;
declare const writerBrand: unique symbol;
/** Opaque handles of the helper. */
export interface MappingHandle {
  readonly [mappingBrand]: true;
}
export interface WatchHandle {
  readonly [watchBrand]: true;
}
export interface BehindHandle {
  readonly [behindBrand]: true;
}
export interface WriterHandle {
  readonly [writerBrand]: true;
}

/**
 * The native helper (src/native/binding.c). Numbers below zero are -errno; wrong arguments, also offsets outside a buffer
 * or a mapping, throw TypeError (ERR_INVALID_ARG_VALUE).
 * Everything else in src/os wraps one part of it, and nobody outside src/os loads it.
 */
interface Native {
  listen(path: string, mode: number): number;
  connect(path: string): number;
  accept(fd: number): number;
  acceptAndTell(listener: number, told: number, bytes: Uint8Array, offset: number, length: number): number;
  socketPair(fds: Int32Array): number;
  isListening(fd: number): number;
  peerPid(fd: number): number;
  receive(fd: number, into: Uint8Array, offset: number, length: number, fds: Int32Array): number;
  send(fd: number, from: Uint8Array, offset: number, length: number, fds: Int32Array): number;
  sendDescriptor(fd: number, passed: number): number;
  peek(fd: number, into: Uint8Array, offset: number, length: number, fds: Int32Array): number;
  consume(fd: number, length: number): number;
  peekOffset(fd: number): number;
  setPeekOffset(fd: number, offset: number): number;
  hungUp(fd: number): number;
  sendFile(fd: number, file: number, length: number): number;
  unread(fd: number): number;
  datagramConnect(path: string): number;
  datagramBind(path: string): number;
  boundPath(fd: number, into: Uint8Array, offset: number, length: number): number;
  close(fd: number): number;
  offset(fd: number): number;
  setOffset(fd: number, offset: number): number;
  allocated(fd: number): number;
  isMemory(fd: number): number;
  punch(fd: number, offset: number, length: number): number;
  duplicate(fd: number): number;
  setNonBlocking(fd: number): number;
  map(fd: number, offset: number, length: number): MappingHandle | number;
  unmap(mapping: MappingHandle): number;
  view(mapping: MappingHandle, offset: number, length: number): ArrayBuffer | number;
  detach(view: ArrayBuffer): number;
  read(mapping: MappingHandle, at: number, into: Uint8Array, offset: number, length: number): number;
  write(mapping: MappingHandle, at: number, from: Uint8Array, offset: number, length: number): number;
  faults(mapping: MappingHandle): number;
  allFaults(): ArrayBuffer;
  memfd(name: string, size: number, hugePageShift: number): number;
  seal(fd: number): number;
  pidfdSelf(): number;
  pageBytes(): number;
  discard(
    mapping: MappingHandle,
    fd: number,
    ranges: Float64Array,
    count: number,
    method: number,
    error: Int32Array,
  ): number;
  discardVector(mapping: MappingHandle, pidfd: number, ranges: Float64Array, count: number): number;
  discardBehind(
    mapping: MappingHandle,
    fd: number,
    ranges: Float64Array,
    count: number,
    method: number,
    outcomes: Int32Array,
    callback: (seconds: number) => void,
  ): BehindHandle | number;
  stopBehind(behind: BehindHandle): number;
  priorityRefused(): number;
  resident(
    mapping: MappingHandle,
    fd: number,
    ranges: Float64Array,
    count: number,
    method: number,
    bytes: Float64Array,
  ): number;
  readsAsZeros(mapping: MappingHandle, fd: number, offset: number, length: number): number;
  eventfd(initial: number): number;
  signal(fd: number): number;
  drain(fd: number): number;
  watch(
    fd: number,
    events: number,
    mode: number,
    callback: (events: number, status: number) => void,
  ): WatchHandle | number;
  setEvents(watch: WatchHandle, events: number): number;
  unwatch(watch: WatchHandle): number;
  openWriter(fd: number, mostBytes: number): WriterHandle | number;
  writeLine(writer: WriterHandle, bytes: Uint8Array, length: number): number;
  writerState(writer: WriterHandle, into: Float64Array): number;
  flushWriter(writer: WriterHandle, stepMs: number, mostMs: number): number;
  closeWriter(writer: WriterHandle): number;
  bootTime(): number;
}

export const native = load();

function load(): Native {
  try {
    return createRequire(PACKAGE)('./src/native/build/Release/balloond_native.node') as Native;
  } catch (error) {
    throw new HelperError(error);
  }
}
