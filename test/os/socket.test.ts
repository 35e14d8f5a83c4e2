import { spawn } from 'node:child_process';
import { fstatSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { Poller, READABLE } from '../../src/os/poller.js';
import {
  acceptUnix,
  connectUnix,
  isListening,
  listenUnix,
  peerPid,
  receive,
  send,
  socketPair,
} from '../../src/os/socket.js';
import { isCloseOnExec, openFds, runNode, script } from './inspect.js';

const SCM_MAX_FD = 253;
const byte = Uint8Array.of(42);

function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'bd-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeFd(fd);
}

void t.test('bytes arrive at the place asked for', (t) => {
  const [a, b] = socketPair();
  const into = new Uint8Array(6).fill(9);
  t.equal(send(a, Uint8Array.of(1, 2, 3, 4), 1, 2, []), 2);
  t.equal(receive(b, into, 3, 3, []), 2);
  t.same([...into], [9, 9, 9, 2, 3, 9]);
  t.equal(receive(b, into, 0, 6, []), -1, 'nothing yet');
  closeFd(a);
  t.equal(receive(b, into, 0, 6, []), 0, 'end of stream');
  t.throws(() => send(b, into, 0, 1, []), { code: 'EPIPE', syscall: 'sendmsg' });
  closeFd(b);
  t.throws(() => receive(b, into, 0, 6, []), { code: 'EBADF', syscall: 'recvmsg' });
  t.end();
});

void t.test('fds travel in both directions', (t) => {
  const before = openFds();
  const [a, b] = socketPair();
  const file = createMemfd('travels', 4096);
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const fds: number[] = [];
    t.equal(send(from, byte, 0, 1, [file]), 1);
    t.equal(receive(to, new Uint8Array(1), 0, 1, fds), 1);
    const [got = -1] = fds;
    t.equal(fds.length, 1);
    t.not(got, file);
    t.equal(fstatSync(got).ino, fstatSync(file).ino);
    t.ok(isCloseOnExec(got));
    closeFd(got);
  }
  closeAll([a, b, file]);
  t.equal(openFds(), before);
  t.end();
});

for (const count of [2, 64, SCM_MAX_FD]) {
  void t.test(`${count} fds in one message`, (t) => {
    const before = openFds();
    const [a, b] = socketPair();
    const files = [createMemfd('even', 4096), createMemfd('odd', 8192)] as const;
    const sent = Array.from({ length: count }, (_, n) => files[n % 2 === 0 ? 0 : 1]);
    const fds = [-7];
    t.equal(send(a, byte, 0, 1, sent), 1);
    t.equal(receive(b, new Uint8Array(1), 0, 1, fds), 1);
    t.equal(fds.shift(), -7, 'appended to what was there');
    t.same(
      fds.map((fd) => fstatSync(fd).size),
      sent.map((_, n) => (n % 2 === 0 ? 4096 : 8192)),
      'all, in order',
    );
    t.ok(fds.every(isCloseOnExec));
    closeAll([a, b, ...files, ...fds]);
    t.equal(openFds(), before);
    t.end();
  });
}

void t.test('fds belong to the bytes they came with', (t) => {
  const [a, b] = socketPair();
  const file = createMemfd('second', 4096);
  send(a, byte, 0, 1, []);
  send(a, byte, 0, 1, [file]);
  const fds: number[] = [];
  t.equal(receive(b, new Uint8Array(1), 0, 1, fds), 1);
  t.equal(fds.length, 0);
  t.equal(receive(b, new Uint8Array(1), 0, 1, fds), 1);
  t.equal(fds.length, 1);
  closeAll([a, b, file, ...fds]);
  t.end();
});

void t.test('what cannot be sent is refused', (t) => {
  const [a, b] = socketPair();
  t.throws(() => send(a, byte, 0, 1, Array<number>(SCM_MAX_FD + 1).fill(a)), { code: 'EINVAL' });
  t.throws(() => send(a, byte, 0, 1, [1_000_000]), { code: 'EBADF' });
  t.throws(() => send(a, byte, 0, 2, []), TypeError, 'beyond the buffer');
  t.throws(() => send(a, byte, 2, 0, []), TypeError);
  t.throws(() => send(a, byte, 0, 0, [b]), TypeError, 'fds without a byte would vanish');
  t.throws(() => receive(b, new Uint8Array(4), 2, 3, []), TypeError);
  t.throws(() => receive(b, new Uint8Array(4), -1, 2, []), TypeError);
  t.throws(() => receive(b, new Uint8Array(4), 0, 0, []), TypeError, 'it would look like the end');
  t.equal(receive(b, new Uint8Array(4), 0, 4, []), -1, 'nothing was sent');
  closeAll([a, b]);
  t.end();
});

void t.test('fds that do not fit are an error that leaves none open', (t) => {
  const { stdout, stderr } = runNode(
    script(
      { socket: 'receive, send, socketPair' },
      `import { readdirSync } from 'node:fs';
       const count = () => readdirSync('/proc/self/fd').length;
       const [a, b] = socketPair();
       send(a, new Uint8Array(1), 0, 1, Array(100).fill(a));
       const before = count(), fds = [];
       let code = 'none';
       try { receive(b, new Uint8Array(1), 0, 1, fds); } catch (error) { code = error.code; }
       console.log(code, fds.length, count() - before);`,
    ),
    [],
    ['sh', '-c', 'ulimit -n 80; exec "$@"', 'sh'],
  );
  t.equal(stdout, 'EMFILE 0 0', { stderr });
  t.end();
});

void t.test('a full socket would block', (t) => {
  const [a, b] = socketPair();
  const chunk = new Uint8Array(65536);
  let sent = 0;
  for (let n = send(a, chunk, 0, chunk.length, []); n !== -1; n = send(a, chunk, 0, chunk.length, []))
    sent += n;
  t.ok(sent > 0);
  let got = 0;
  for (let n = receive(b, chunk, 0, chunk.length, []); n !== -1; n = receive(b, chunk, 0, chunk.length, []))
    got += n;
  t.equal(got, sent);
  t.not(send(a, chunk, 0, 1, []), -1, 'there is room again');
  closeAll([a, b]);
  t.end();
});

void t.test('listen, connect, accept', (t) => {
  const before = openFds();
  const path = join(temporaryFolder(t), 'socket');
  const listener = listenUnix(path, 0o660);
  t.equal(statSync(path).mode & 0o777, 0o660, 'whatever the umask');
  t.ok(isListening(listener));
  t.equal(acceptUnix(listener), null, 'nobody waits');
  const client = connectUnix(path);
  const server = acceptUnix(listener) ?? -1;
  t.notOk(isListening(server));
  t.ok([listener, client, server].every(isCloseOnExec));
  t.equal(send(client, byte, 0, 1, []), 1);
  t.equal(receive(server, new Uint8Array(1), 0, 1, []), 1);
  t.equal(receive(server, new Uint8Array(1), 0, 1, []), -1, 'non-blocking without being told');
  closeAll([listener, client, server]);
  t.throws(() => isListening(listener), { code: 'EBADF' });
  t.equal(openFds(), before);
  t.end();
});

void t.test('a socket pair is close-on-exec', (t) => {
  const pair = socketPair();
  t.ok(pair.every(isCloseOnExec));
  closeAll(pair);
  t.end();
});

void t.test('a stale socket is taken over, a live one is not', (t) => {
  const path = join(temporaryFolder(t), 'socket');
  closeFd(listenUnix(path));
  t.ok(statSync(path).isSocket(), 'left behind');
  t.throws(() => connectUnix(path), { code: 'ECONNREFUSED' });
  const before = openFds();
  const listener = listenUnix(path);
  t.throws(() => listenUnix(path), { code: 'EADDRINUSE', message: /socket: EADDRINUSE/ });
  t.equal(openFds(), before + 1);
  const client = connectUnix(path);
  t.type(acceptUnix(listener), 'number', 'the probe of the refused one waits here');
  closeAll([client, listener]);
  t.end();
});

void t.test('what is no socket is left alone', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'file');
  writeFileSync(path, 'precious');
  t.throws(() => listenUnix(path), { code: 'EADDRINUSE' });
  t.equal(statSync(path).size, 8);
  t.throws(() => listenUnix(join(folder, 'none', 'socket')), { code: 'ENOENT' });
  t.throws(() => connectUnix(join(folder, 'none')), { code: 'ENOENT' });
  t.end();
});

void t.test('a path has at most 107 bytes', (t) => {
  const folder = temporaryFolder(t);
  const longest = join(folder, 'x'.repeat(107 - folder.length - 1));
  closeFd(listenUnix(longest));
  t.ok(statSync(longest).isSocket(), 'not cut');
  for (const path of [`${longest}x`, `${folder}/${'ü'.repeat(60)}`, `/${'x'.repeat(10_000)}`]) {
    t.throws(() => listenUnix(path), { code: 'ENAMETOOLONG' });
    t.throws(() => connectUnix(path), { code: 'ENAMETOOLONG' });
  }
  t.throws(() => listenUnix(''), { code: 'EINVAL' });
  t.throws(() => listenUnix(`${folder}/a\0b`), { code: 'EINVAL' });
  t.throws(() => listenUnix(`${folder}/mode`, 0o1777), TypeError);
  t.end();
});

void t.test('the peer is who connected', async (t) => {
  const [a, b] = socketPair();
  t.equal(peerPid(a), process.pid);
  closeAll([a, b]);
  t.throws(() => peerPid(a), { code: 'EBADF' });

  const path = join(temporaryFolder(t), 'socket');
  const listener = listenUnix(path);
  const child = spawn(process.execPath, ['-e', `require('node:net').connect(${JSON.stringify(path)})`], {
    stdio: 'ignore',
  });
  await new Promise<void>((resolve) => {
    const poller = new Poller(listener, READABLE, () => {
      poller.close();
      resolve();
    });
  });
  const server = acceptUnix(listener) ?? -1;
  t.equal(peerPid(server), child.pid);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  closeAll([server, listener]);
  await ended;
});
