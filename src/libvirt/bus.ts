/**
 * A client of the message bus of the system, D-Bus, on which libvirt-dbus offers libvirt. It calls methods and hears signals,
 * and offers nothing itself.
 */
import { connect, type Socket } from 'node:net';
import { VmmError } from '../../protocol/adopted.js';
import {
  DbusMessages,
  encodeCall,
  type DbusCall,
  type DbusMessage,
  type DbusSignal,
} from '../../protocol/dbus/messages.js';

const BUS = {
  destination: 'org.freedesktop.DBus',
  path: '/org/freedesktop/DBus',
  interface: 'org.freedesktop.DBus',
} as const;
/** A bus that has not let the daemon in by then does not work. */
const WELCOME_MS = 10_000;

interface Unanswered {
  resolve(values: readonly unknown[]): void;
  reject(error: VmmError): void;
}

interface BusObserver {
  signal(signal: DbusSignal): void;
  /** Called once, when the connection ended; the end of a sentence on why. */
  closed(why: string): void;
}

export class Bus {
  readonly #socket: Socket;
  readonly #messages = new DbusMessages();
  readonly #unanswered = new Map<number, Unanswered>();
  #observer: BusObserver | null = null;
  #lastSerial = 0;
  /** The line of text by which the bus lets a client in; null: it has. */
  #line: string | null = '';
  #welcome: Unanswered | null = null;
  #ended: string | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#try(() => this.#take(chunk)));
    socket.on('error', (error) => this.#end(codeOf(error)));
    socket.on('close', () => this.#end('the bus closed the connection'));
    socket.unref();
  }

  /** Connects to the bus that listens at `path`. Rejects with VmmError: the bus is not there, or does not let the daemon in. */
  static async open(path: string): Promise<Bus> {
    const bus = new Bus(connect({ path }));
    const late = setTimeout(() => bus.#end('the bus does not answer'), WELCOME_MS).unref();
    try {
      await bus.#enter();
      await bus.call({ ...BUS, member: 'Hello', signature: '', args: [] });
      return bus;
    } catch (error) {
      bus.close();
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  /** Whom signals go to that subscribe() asked for, and the end of the connection. */
  listen(observer: BusObserver): void {
    this.#observer = observer;
    const why = this.#ended;
    if (why !== null) queueMicrotask(() => observer.closed(why));
  }

  /** Has the bus send the signals that a rule matches ("Match Rules" of the specification). */
  async subscribe(rule: string): Promise<void> {
    await this.call({ ...BUS, member: 'AddMatch', signature: 's', args: [rule] });
  }

  /** What the method returned. Rejects with VmmError; waits as long as the peer takes. */
  call(call: DbusCall): Promise<readonly unknown[]> {
    const ended = this.#ended;
    if (ended !== null) return Promise.reject(new VmmError(ended));
    const serial = ++this.#lastSerial;
    return new Promise((resolve, reject) => {
      this.#unanswered.set(serial, { resolve, reject });
      this.#socket.write(encodeCall(serial, call));
    });
  }

  close(): void {
    this.#end('the daemon closed the connection');
  }

  /** The kernel tells the bus who the daemon is. */
  #enter(): Promise<unknown> {
    const user = Buffer.from(String(process.geteuid?.() ?? 0)).toString('hex');
    this.#socket.write(`\0AUTH EXTERNAL ${user}\r\n`);
    return new Promise((resolve, reject) => (this.#welcome = { resolve, reject }));
  }

  #take(chunk: Buffer): void {
    if (this.#line !== null) {
      const end = chunk.indexOf('\n');
      this.#line += chunk.subarray(0, end < 0 ? chunk.length : end).toString('latin1');
      if (!'OK '.startsWith(this.#line.slice(0, 3)) || this.#line.length > 1000)
        throw new VmmError('the bus does not let the daemon in');
      if (end < 0) return;
      this.#line = null;
      this.#socket.write('BEGIN\r\n');
      this.#welcome?.resolve([]);
      this.#welcome = null;
      chunk = chunk.subarray(end + 1);
    }
    for (const message of this.#messages.push(chunk)) this.#hear(message);
  }

  #hear(message: DbusMessage): void {
    if (message.kind === 'signal') this.#observer?.signal(message);
    if (message.kind !== 'answer' && message.kind !== 'refusal') return;
    const waiting = this.#unanswered.get(message.to);
    this.#unanswered.delete(message.to);
    if (message.kind === 'answer') waiting?.resolve(message.values);
    else waiting?.reject(message.error);
  }

  #try(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      this.#end(error.message);
    }
  }

  #end(why: string): void {
    if (this.#ended !== null) return;
    this.#ended = why;
    this.#socket.destroy();
    const error = new VmmError(why);
    this.#welcome?.reject(error);
    for (const waiting of this.#unanswered.values()) waiting.reject(error);
    this.#unanswered.clear();
    this.#observer?.closed(why);
  }
}

function codeOf(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return 'there is no bus';
  if (error.code === 'ECONNREFUSED') return 'no bus listens there';
  if (error.code === 'EACCES') return 'the daemon may not connect to the bus';
  return `the connection to the bus failed (${error.code ?? error.message})`;
}
