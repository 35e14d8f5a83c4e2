/**
 * A process that maps files as VMMs do, and how root sees that. It runs in a mount namespace with a tmpfs of huge pages, so that
 * the kernel allows some whatever this machine's policy is. Needs root and python3.
 */
import type { VmmMemory } from '../../src/host/vmm-memory.js';
import { runNode } from '../os/inspect.js';

interface Mapped {
  /** `memfd:NAME`, a path in `/mnt`, or `hugetlb`, whose pages must be reserved. */
  readonly file: string;
  /** Bytes behind a multiple of 2 MiB. */
  readonly behind: number;
  readonly shared?: boolean;
}

interface Seen {
  readonly memory: VmmMemory | null;
  /** The kernel's THPeligible of each. */
  readonly eligible: readonly boolean[];
}

/** Of each file. */
export const MAPPED_BYTES = 8 * 2 ** 20;

const VMM = `import ctypes, json, os, re, sys
wanted, switched_off = json.loads(sys.argv[1]), sys.argv[2] == "true"
size, huge = ${MAPPED_BYTES}, 2 ** 21
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
if switched_off: assert libc.prctl(41, 1, 0, 0, 0) == 0
def map(path, behind, shared):
    room = libc.mmap(None, size + 2 * huge, 0, 0x22, -1, 0)
    at = room + (-room % huge) + behind
    assert libc.mmap(at, size, 3, 0x10 | (1 if shared else 2), os.open(path, os.O_RDWR), 0) == at
    libc.madvise(at, size, 14)
    return at
places = [map(*each) for each in wanted]
smaps = open("/proc/self/smaps").read()
def eligible(at): return re.search(r"THPeligible:\\s+(\\d)", smaps.split("%x-%x " % (at, at + size))[1]).group(1) == "1"
print(json.dumps([eligible(at) for at in places]), flush=True)
sys.stdin.read()`;

const built = (path: string): string => JSON.stringify(new URL(`../../src/${path}.js`, import.meta.url).href);

/** The daemon is a process that maps each file, too. `switchedOff`: the VMM has no huge pages. */
export function lookAt(mapped: readonly Mapped[], switchedOff = false): Seen {
  const code = `import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { ftruncateSync, openSync } from 'node:fs';
import { createMemfd } from ${built('os/memfd')};
import { Mapping } from ${built('os/mapping')};
import { SharedMemory } from ${built('host/vmm-memory')};
const open = (file) => {
  if (file === 'hugetlb') return createMemfd('huge', ${MAPPED_BYTES}, { hugePageBytes: 2 ** 21 });
  if (file.startsWith('memfd:')) return createMemfd(file.slice('memfd:'.length), ${MAPPED_BYTES});
  const fd = openSync(file, 'w+');
  ftruncateSync(fd, ${MAPPED_BYTES});
  return fd;
};
const mappings = [];
const wanted = ${JSON.stringify(mapped)}.map(({ file, behind, shared = true }) => {
  const fd = open(file);
  mappings.push(Mapping.map(fd, 0, ${MAPPED_BYTES}));
  return [\`/proc/\${process.pid}/fd/\${fd}\`, behind, shared];
});
const words = ['-c', ${JSON.stringify(VMM)}, JSON.stringify(wanted), '${String(switchedOff)}'];
const vmm = spawn('python3', words, { stdio: ['pipe', 'pipe', 'inherit'] });
const [eligible] = await once(vmm.stdout, 'data');
console.log(JSON.stringify({ memory: new SharedMemory(process.pid).of(vmm.pid), eligible: JSON.parse(eligible) }));
vmm.stdin.end();`;
  const inside = 'mount -t tmpfs -o huge=always ram /mnt || exit 9; exec "$@"';
  const { status, stdout, stderr } = runNode(code, [], ['unshare', '--mount', 'sh', '-c', inside, 'sh']);
  if (status !== 0) throw new Error(`the mappings cannot be looked at: ${stderr}`);
  return JSON.parse(stdout) as Seen;
}
