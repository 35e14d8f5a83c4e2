#!/bin/sh
# A page that is discarded from a file on hugetlbfs loses its reservation, although the mapping that reserved it is still there: when
# another file takes the pages, whoever touches the hole gets SIGBUS. fallocate() without punching brings pages back, or fails with
# ENOSPC; mmap() and munmap() of the hole alone reserve it again, for good. And a page that was reserved and never touched keeps
# its reservation when it is discarded: the pool gets nothing of memory that a guest never touched.
# Guess: the reservation belongs to the mapping, so the kernel makes it anew with the hole, and drops it with munmap(). Seen on Linux 6.18
# (x86-64, 2 MiB): it belongs to the file. Fails if any of that changes. Needs root and python3; adds 4 pages to the host's pool, mounts a
# hugetlbfs that may have no more, so that others do not matter, and puts both back.
set -eu
exec python3 - <<'PYTHON'
import ctypes, errno, mmap, os, signal, subprocess, tempfile

HUGE, PAGES = 2 ** 21, 4
NUMBER = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
KEEP_SIZE, PUNCH_HOLE = 1, 2
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]

def add(pages):
    number = int(open(NUMBER).read()) + pages
    open(NUMBER, "w").write(str(number))

def free():
    """Pages that are neither taken nor reserved."""
    return os.statvfs(folder).f_bfree

def fallocate(fd, mode, page):
    return errno.errorcode[ctypes.get_errno()] if libc.fallocate(fd, mode | KEEP_SIZE, page * HUGE, HUGE) else "done"

def touched(mapping, page):
    pid = os.fork()
    if pid == 0:
        mapping[page * HUGE] = 1
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def file(name):
    fd = os.open(f"{folder}/{name}", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, PAGES * HUGE)
    return fd

def expect(what, seen, wanted):
    print(f"{what:60} {seen}")
    if seen != wanted:
        raise SystemExit(f"the kernel did otherwise: {wanted} was expected")

print(os.uname().release, os.uname().machine)
add(PAGES)
folder = tempfile.mkdtemp()
try:
    subprocess.run(["mount", "-t", "hugetlbfs", "-o", f"size={PAGES * HUGE},pagesize={HUGE}", "none", folder], check=True)
    guest, other = file("guest"), file("other")
    memory = mmap.mmap(guest, PAGES * HUGE, mmap.MAP_SHARED)
    expect("free when 4 pages are mapped", free(), 0)
    for page in range(3): memory[page * HUGE] = 1
    expect("free when 3 of them were touched", free(), 0)
    expect("free when the fourth was discarded, untouched", (fallocate(guest, PUNCH_HOLE, 3), free()), ("done", 0))
    for page in range(3): fallocate(guest, PUNCH_HOLE, page)
    expect("free when the others were discarded", free(), 3)
    mmap.mmap(guest, HUGE, mmap.MAP_SHARED, offset=0).close()
    expect("free when the first hole was mapped and unmapped", free(), 2)
    expect("another file takes 2 pages, and wants a third", [fallocate(other, 0, page) for page in range(3)], ["done", "done", "ENOSPC"])
    expect("the first hole is touched, which is reserved", touched(memory, 0), 0)
    expect("the second hole is touched, which is not", touched(memory, 1), -signal.SIGBUS)
    expect("the second hole is allocated", fallocate(guest, 0, 1), "ENOSPC")
    expect("a page of the other file is discarded", fallocate(other, PUNCH_HOLE, 0), "done")
    expect("the second hole is allocated, and touched", (fallocate(guest, 0, 1), touched(memory, 1)), ("done", 0))
finally:
    subprocess.run(["umount", "--lazy", folder])
    os.rmdir(folder)
    add(-PAGES)
PYTHON
