// A bus with libvirt-dbus on it, as far as the daemon talks to them, for one client; its domains do as they are told. The messages
// are as those of test/support/dbus-frames.ts.
import { createServer, type Server, type Socket } from 'node:net';
import type { Test } from 'tap';
import { alignedUp, DbusReader, DbusWriter, type SentValue } from '../../protocol/dbus/values.js';
import { KIB } from '../../protocol/libvirt/domain.js';
import { MIB } from './qemu-model.js';

const CONNECT = 'org.libvirt.Connect';
const DOMAIN = 'org.libvirt.Domain';
const CALL_FIELDS = { path: 1, interface: 2, member: 3, signature: 8 };

export interface DomainModel {
  name: string;
  uuid: string;
  /** The value of <memballoon model='…'>. */
  balloon: string;
  ramBytes: number;
  balloonBytes: number;
  period: number;
  state: number;
  statsAt: number;
  /** More of its XML, within <devices>. */
  devices: string;
  /** It answers; false: its QEMU hangs. */
  answers: boolean;
  /** The guest follows its target. */
  follows: boolean;
}

interface Body {
  signature: string;
  bytes: Uint8Array;
}

const EMPTY: Body = { signature: '', bytes: new Uint8Array(0) };

export class LibvirtModel {
  readonly path: string;
  readonly domains = new Map<string, DomainModel>();
  /** Why libvirt cannot be asked: the name of an error and its words; null: it can. */
  broken: [name: string, words: string] | null = null;
  /** All calls that came, such as `SetMemory 409600`. */
  readonly calls: string[] = [];
  /** Calls that are refused once, by their names. */
  readonly #breaks = new Map<string, [name: string, words: string]>();
  readonly #server: Server;
  readonly #clients = new Set<Socket>();
  #serial = 100;

  private constructor(path: string) {
    this.path = path;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async start(t: Test, path: string): Promise<LibvirtModel> {
    const model = new LibvirtModel(path);
    await new Promise<void>((resolve) => model.#server.listen(path, resolve));
    t.teardown(() => model.end());
    return model;
  }

  /** As when the bus ends. */
  async end(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /** The next call of that name is refused. */
  breaks(member: string, why: [name: string, words: string]): void {
    this.#breaks.set(member, why);
  }

  domain(name: string, change: Partial<DomainModel> = {}): DomainModel {
    const domain: DomainModel = {
      name,
      uuid: `0c91342d-9084-4cbb-8c6b-${name.padEnd(12, '0')}`,
      balloon: 'virtio',
      ramBytes: 1024 * MIB,
      balloonBytes: 0,
      period: 0,
      state: 1,
      statsAt: 1_700_000_000,
      devices: '',
      answers: true,
      follows: true,
      ...change,
    };
    this.domains.set(objectOf(domain), domain);
    return domain;
  }

  /** An event of a domain's life: it began or its guest woke (2), it was paused (3), goes on (4), stopped (5), or its guest sleeps (7), with why. */
  lives(domain: DomainModel, event: number, detail = 0): void {
    if (event === 5) this.domains.delete(objectOf(domain));
    else domain.state = event === 3 || event === 7 ? event : 1;
    this.signal('/org/libvirt/QEMU', CONNECT, 'DomainEvent', 'oii', [objectOf(domain), event, detail]);
  }

  inflate(domain: DomainModel, bytes: number): void {
    domain.balloonBytes = bytes;
    this.signal(objectOf(domain), DOMAIN, 'BalloonChange', 't', [(domain.ramBytes - bytes) / KIB]);
  }

  reboot(domain: DomainModel): void {
    domain.balloonBytes = 0;
    this.signal(objectOf(domain), DOMAIN, 'Reboot', '', []);
  }

  signal(path: string, from: string, member: string, signature: string, args: readonly SentValue[]): void {
    const fields = new DbusWriter().field(1, 'o', path).field(2, 's', from).field(3, 's', member);
    const body = { signature, bytes: new DbusWriter().values(signature, args).done() };
    for (const client of this.#clients) this.#send(client, 4, fields, body);
  }

  /** Anything at all. */
  write(bytes: Uint8Array): void {
    for (const client of this.#clients) client.write(bytes);
  }

  #serve(socket: Socket): void {
    this.#clients.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#clients.delete(socket));
    let rest = Buffer.alloc(0);
    let isIn = false;
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      if (!isIn) {
        const end = rest.indexOf('BEGIN\r\n');
        if (end < 0) socket.write('OK 2b575d9ba3d15a4618d02cd6a583bb80\r\n');
        if (end < 0) return;
        isIn = true;
        rest = rest.subarray(end + 7);
      }
      for (let length = lengthOf(rest); length <= rest.length; length = lengthOf(rest)) {
        this.#take(socket, rest.subarray(0, length));
        rest = rest.subarray(length);
      }
    });
  }

  #take(socket: Socket, bytes: Uint8Array): void {
    const [, serial, fieldBytes = 0] = new DbusReader(bytes, true, 4).values('uuu') as number[];
    const [list] = new DbusReader(bytes, true, 12).values('a(yv)') as [[number, string][]];
    const fields = new Map(list);
    const text = (field: number): string => fields.get(field) ?? '';
    const body = new DbusReader(bytes, true, alignedUp(16 + fieldBytes, 8));
    const args = body.values(text(CALL_FIELDS.signature));
    const member = text(CALL_FIELDS.member);
    this.calls.push([member, ...args].join(' '));
    const reply = new DbusWriter().field(5, 'u', serial ?? 0);
    const isBus = text(CALL_FIELDS.interface) === 'org.freedesktop.DBus';
    const domain = this.domains.get(text(CALL_FIELDS.path));
    const breaks = this.#breaks.get(member);
    this.#breaks.delete(member);
    if (breaks !== undefined) this.#refuse(socket, reply, ...breaks);
    else if (!isBus && this.broken !== null) this.#refuse(socket, reply, ...this.broken);
    else if (isBus) this.#send(socket, 2, reply, EMPTY);
    else if (member === 'Get') this.#send(socket, 2, reply, variant('t', 11_003_000));
    else if (member === 'ListDomains') this.#send(socket, 2, reply, objects([...this.domains.keys()]));
    else if (domain === undefined) this.#refuse(socket, reply, 'org.libvirt.Error', 'Domain not found');
    else if (domain.answers || member === 'GetXMLDesc') {
      this.#send(socket, 2, reply, answer(domain, member, args));
      if (member === 'SetMemory' && domain.follows)
        this.inflate(domain, domain.ramBytes - Number(args[0]) * KIB);
    }
  }

  #refuse(socket: Socket, reply: DbusWriter, name: string, words: string): void {
    const body = { signature: 's', bytes: new DbusWriter().values('s', [words]).done() };
    this.#send(socket, 3, reply.field(4, 's', name), body);
  }

  #send(socket: Socket, type: number, fields: DbusWriter, { signature, bytes }: Body): void {
    const list = (signature === '' ? fields : fields.field(8, 'g', signature)).done();
    const head = new DbusWriter()
      .values('yyyyuuu', [0x6c, type, 1, 1, bytes.length, ++this.#serial, list.length])
      .done();
    socket.write(Buffer.concat([head, list, new Uint8Array(alignedUp(list.length, 8) - list.length), bytes]));
  }
}

function objectOf({ uuid }: DomainModel): string {
  return `/org/libvirt/QEMU/domain/_${uuid.replaceAll('-', '_')}`;
}

function lengthOf(bytes: Uint8Array): number {
  if (bytes.length < 16) return Infinity;
  const [body = 0, , fields = 0] = new DbusReader(bytes, true, 4).values('uuu') as number[];
  return alignedUp(16 + fields, 8) + body;
}

function answer(domain: DomainModel, member: string, args: readonly unknown[]): Body {
  const current = (domain.ramBytes - domain.balloonBytes) / KIB;
  const total = current - 24 * KIB;
  switch (member) {
    case 'GetXMLDesc':
      return { signature: 's', bytes: new DbusWriter().values('s', [xmlOf(domain)]).done() };
    case 'MemoryStats': {
      const stats = [
        [6, current],
        [5, total],
        [8, 600 * KIB],
        [9, domain.statsAt],
      ] as const;
      return dictionary('a{it}', stats, (writer, [tag, count]) =>
        writer.values('i', [tag]).values('t', [count]),
      );
    }
    case 'GetStats': {
      const stats = [
        ['state.state', domain.state],
        ['balloon.current', current],
        ['balloon.maximum', domain.ramBytes / KIB],
        ['balloon.available', total],
        ['balloon.usable', 600 * KIB],
        ['balloon.last-update', domain.statsAt],
      ] as const;
      return dictionary('a{sv}', stats, (writer, [name, count]) => writer.values('sgt', [name, 't', count]));
    }
    case 'SetMemoryStatsPeriod':
      domain.period = Number(args[0]);
      if (domain.period > 0) domain.statsAt = Math.floor(Date.now() / 1000);
      return EMPTY;
    default:
      return EMPTY;
  }
}

function xmlOf({ name, uuid, ramBytes, balloon, period, devices }: DomainModel): string {
  const stats = period === 0 ? '' : `<stats period='${period}'/>`;
  return `<domain type='kvm' id='1'><name>${name}</name><uuid>${uuid}</uuid><memory unit='KiB'>${ramBytes / KIB}</memory>
<devices>${devices}<memballoon model='${balloon}'>${stats}</memballoon></devices></domain>`;
}

function variant(type: string, value: number): Body {
  return { signature: 'v', bytes: new DbusWriter().values(`g${type}`, [type, value]).done() };
}

function objects(paths: readonly string[]): Body {
  const writer = new DbusWriter();
  for (const path of paths) writer.values('o', [path]);
  return { signature: 'ao', bytes: withLength(writer.done(), 4) };
}

/** Its entries begin at multiples of 8. */
function dictionary<T>(
  signature: string,
  entries: readonly T[],
  write: (writer: DbusWriter, entry: T) => void,
): Body {
  const writer = new DbusWriter();
  for (const entry of entries) write(writer.align(8), entry);
  return { signature, bytes: withLength(writer.done(), 8) };
}

function withLength(items: Uint8Array, at: number): Uint8Array {
  const bytes = new Uint8Array(at + items.length);
  new DataView(bytes.buffer).setUint32(0, items.length, true);
  bytes.set(items, at);
  return bytes;
}
