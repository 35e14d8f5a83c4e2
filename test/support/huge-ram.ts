// Memory of huge pages in a process of its own, which pins a page of it when it is asked to. Needs root and python3.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import type { Test } from 'tap';

/** vmsplice() holds the page that it puts into a pipe, as io_uring's buffers and O_DIRECT do, and needs no privilege. */
const PROGRAM = `import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.vmsplice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
size, huge = int(sys.argv[1]), 2 ** 21
fd = os.open("/mnt/ram", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, size)
room = libc.mmap(None, size + huge, 0, 0x22, -1, 0)
at = room + (-room % huge)
assert libc.mmap(at, size, 3, 0x11, fd, 0) == at
ctypes.memset(at, 1, size)
kind = "huge" if "ShmemPmdMapped: %8d kB" % (size // 1024) in open("/proc/self/smaps").read() else "small"
print(f"{fd} {kind}\\n", end="", flush=True)
ends = None
for line in sys.stdin:
    order, page = line.split()
    if order == "pin":
        ends = os.pipe()
        vector = (ctypes.c_size_t * 2)(at + int(page) * 4096, 4096)
        assert libc.vmsplice(ends[1], vector, 1, 0) == 4096
    else:
        for end in ends: os.close(end)
    print("done\\n", end="", flush=True)`;

export class HugeRam {
  /** Of the file, for whoever closes it. */
  readonly fd: number;
  readonly #child: ChildProcessWithoutNullStreams;

  private constructor(child: ChildProcessWithoutNullStreams, fd: number) {
    this.#child = child;
    this.fd = fd;
  }

  /** Every byte of it is 1. Null, and the test is told, where the kernel gives no huge pages. Ends with the test. */
  static async start(t: Test, lenBytes: number): Promise<HugeRam | null> {
    const inside = 'mount -t tmpfs -o huge=always ram /mnt || exit 9; exec python3 -c "$0" "$1"';
    const child = spawn('unshare', ['--mount', 'sh', '-c', inside, PROGRAM, String(lenBytes)]);
    t.teardown(() => child.kill('SIGKILL'));
    const answered = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
    const [fd = '', kind] = String(answered[0]).trim().split(' ');
    if (kind !== 'huge') {
      t.pass('huge pages', { skip: `the kernel gives none here (${String(answered[0]).trim()})` });
      return null;
    }
    return new HugeRam(child, openSync(`/proc/${child.pid ?? 0}/fd/${fd}`, 'r+'));
  }

  pin(page: number): Promise<void> {
    return this.#order(`pin ${page}`);
  }

  unpin(): Promise<void> {
    return this.#order('unpin 0');
  }

  async #order(line: string): Promise<void> {
    const done = once(this.#child.stdout, 'data');
    this.#child.stdin.write(`${line}\n`);
    await done;
  }
}
