#!/bin/sh
# What the host shows of shmem pages that are discarded (fallocate with FALLOC_FL_PUNCH_HOLE, as MADV_REMOVE does) while a program pins one
# (vmsplice here; io_uring's buffers, O_DIRECT and RDMA alike), and which ways of looking see pages that came back. Seen on Linux 6.18:
# 1. A pinned 4 KiB page: the punch takes it out of the file, so st_blocks, cachestat, mincore and SEEK_DATA say that it is gone. The
#    memory stays with whoever pins it, who goes on to read the old bytes.
# 2. One page of a 2 MiB page is pinned, and another is punched: the call succeeds, the page reads as zeros, and the file keeps all 512 pages.
#    Nothing changes when the pin goes. Only a second punch of the same pages frees them. A punch of all 2 MiB works despite the pin.
# 3. Next to pages that were punched, one touch in an otherwise empty 2 MiB brings all 512 pages back.
# 4. fallocate() brings pages back that st_blocks and cachestat see and neither mincore nor SEEK_DATA does, until they are touched.
#    mlock by another process does not keep a page from being punched.
# Guess: 1, 3 and what SEEK_DATA sees as they are; 2 was known from an earlier run; that mincore sees what fallocate made was wrong.
# Fails if one of the four is not so. Needs root, python3, and Linux 6.5 for cachestat.
set -eu
exec unshare --mount python3 - <<'PYTHON'
import ctypes, os, re, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.vmsplice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
PAGE, HUGE, CACHESTAT = 4096, 2 ** 21, 451
wrong = []

def mapped(fd, size):
    room = libc.mmap(None, size + HUGE, 0, 0x22, -1, 0)
    at = room + (-room % HUGE)
    assert libc.mmap(at, size, 3, 0x11, fd, 0) == at
    return at

def punch(fd, first, count):
    for page in range(first, first + count):
        assert libc.fallocate(fd, 3, page * PAGE, PAGE) == 0

def pin(at, page):
    ends = os.pipe()
    vector = (ctypes.c_size_t * 2)(at + page * PAGE, PAGE)
    assert libc.vmsplice(ends[1], vector, 1, 0) == PAGE
    return ends

def unpin(ends):
    for end in ends: os.close(end)

def seek_data(fd, size):
    found, at = 0, 0
    while at < size:
        try: data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError: break
        at = os.lseek(fd, data, os.SEEK_HOLE)
        found += at - data
    return found // PAGE

def look(what, fd, at, size, expected):
    asked, answer = (ctypes.c_uint64 * 2)(0, size), (ctypes.c_uint64 * 5)()
    assert libc.syscall(ctypes.c_long(CACHESTAT), ctypes.c_long(fd), asked, answer, ctypes.c_long(0)) == 0
    vector = (ctypes.c_ubyte * (size // PAGE))()
    assert libc.mincore(at, size, vector) == 0
    seen = (os.fstat(fd).st_blocks // 8, answer[0], sum(each & 1 for each in vector), seek_data(fd, size))
    print(f"{what:50} blocks {seen[0]:4} cachestat {seen[1]:4} mincore {seen[2]:4} SEEK_DATA {seen[3]:4}")
    if seen != expected: wrong.append((what, seen, expected))

print(os.uname().release)
small = os.memfd_create("small")
os.ftruncate(small, 64 * PAGE)
at = mapped(small, 64 * PAGE)
ctypes.memset(at, 1, 64 * PAGE)
ends = pin(at, 5)
punch(small, 0, 64)
look("64 pages, one pinned, all punched", small, at, 64 * PAGE, (0, 0, 0, 0))
if os.read(ends[0], PAGE) != b"\1" * PAGE: wrong.append("whoever pins a page reads other bytes")
unpin(ends)
libc.fallocate(small, 0, 0, 64 * PAGE)
look("64 pages by fallocate", small, at, 64 * PAGE, (64, 64, 0, 0))
ctypes.memset(at, 1, 64 * PAGE)
if os.fork() == 0:
    own = mapped(small, 64 * PAGE)
    assert libc.mlock(own, 64 * PAGE) == 0
    punch(small, 0, 64)
    look("64 pages, locked, punched", small, own, 64 * PAGE, (0, 0, 0, 0))
    os._exit(len(wrong))
if os.wait()[1] != 0: wrong.append("mlock keeps pages")

subprocess.run(["mount", "-t", "tmpfs", "-o", "huge=always", "ram", "/mnt"], check=True)
huge = os.open("/mnt/ram", os.O_RDWR | os.O_CREAT)
os.ftruncate(huge, HUGE)
at = mapped(huge, HUGE)
all_of_it = (512,) * 4
ctypes.memset(at, 1, HUGE)
look("a huge page", huge, at, HUGE, all_of_it)
ends = pin(at, 5)
punch(huge, 6, 506)
look("page 5 pinned, pages 6 to 511 punched", huge, at, HUGE, all_of_it)
if os.pread(huge, PAGE, 100 * PAGE) != bytes(PAGE): wrong.append("a punched page is not zeros")
unpin(ends)
look("the pin is gone", huge, at, HUGE, all_of_it)
punch(huge, 6, 506)
look("pages 6 to 511 punched again", huge, at, HUGE, (6,) * 4)
assert libc.fallocate(huge, 3, 0, HUGE) == 0
ctypes.memset(at, 1, HUGE)
ends = pin(at, 5)
assert libc.fallocate(huge, 3, 0, HUGE) == 0
look("page 5 pinned, all punched at once", huge, at, HUGE, (0,) * 4)
unpin(ends)
ctypes.memset(at + 7 * PAGE, 1, PAGE)
look("one page touched", huge, at, HUGE, all_of_it)
for each in wrong: print("not so:", each)
sys.exit(bool(wrong))
PYTHON
