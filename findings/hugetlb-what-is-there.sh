#!/bin/sh
# No call says which pages a file on hugetlbfs has. Of a file without any page SEEK_DATA says that it is all data, cachestat() refuses,
# and mincore() goes by the page tables of the process that asks, so that a process that has touched nothing is told that nothing
# is there. st_blocks alone tells, of the whole file. And a hole that is smaller than a page gives nothing back without an error:
# fallocate() and MADV_REMOVE write zeros into the page, and MADV_DONTNEED does nothing when its start is that of a page.
# Guess: SEEK_DATA and mincore() tell of a hugetlbfs file what they tell of a tmpfs file, with larger steps, and a hole that no page fits
# into is refused with EINVAL. Seen on Linux 6.18 (x86-64, 2 MiB); the same calls on tmpfs stand beside it. Fails if any of that
# changes. Needs root and python3; adds 4 pages to the host's pool and takes them out again.
set -eu
exec python3 - <<'PYTHON'
import ctypes, errno, os, struct

PAGES = 4
NUMBER = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
KEEP_SIZE, PUNCH_HOLE, DONTNEED, REMOVE, CACHESTAT = 1, 2, 4, 9, 451
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]

def word(result):
    return errno.errorcode[ctypes.get_errno()] if result else "done"

def add(pages):
    number = int(open(NUMBER).read()) + pages
    open(NUMBER, "w").write(str(number))

def expect(what, seen, wanted):
    print(f"  {what:56} {seen}")
    if seen != wanted:
        raise SystemExit(f"the kernel did otherwise: {wanted} was expected")

def seek(fd, whence):
    try:
        return os.lseek(fd, 0, whence)
    except OSError as error:
        return errno.errorcode[error.errno]

def try_half(fd, address, page):
    half = page // 2
    expect("half a page punched", word(libc.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 0, half)), "done")
    expect("half a page removed", word(libc.madvise(address + page, half, REMOVE)), "done")
    first = [ctypes.string_at(address + at, 1) for at in (0, half, page, page + half)]
    expect("first bytes of the four halves", first, [b"\0", b"Z", b"\0", b"Z"])
    expect("half a page of no need, from its start", word(libc.madvise(address, half, DONTNEED)), "done")
    expect("half a page of no need, from its middle", word(libc.madvise(address + half, half, DONTNEED)), "EINVAL")
    expect("blocks after all that", os.fstat(fd).st_blocks, 2 * page // 512)

def try_file(name, flags, page, wanted):
    print(name)
    fd, size = os.memfd_create("pages", flags), PAGES * page
    os.ftruncate(fd, size)
    expect("first data of a file without any page", seek(fd, os.SEEK_DATA), wanted["data"])
    ours, theirs = (libc.mmap(None, size, 3, 1, fd, 0) for _ in range(2))
    ctypes.memset(ours, 0x5A, 2 * page)
    expect("blocks of 512 bytes when 2 pages were written", os.fstat(fd).st_blocks, 2 * page // 512)
    vector = ctypes.create_string_buffer(size // 4096)
    libc.mincore(theirs, size, vector)
    expect("present in a mapping that nobody touched (mincore)", sum(byte & 1 for byte in vector.raw), wanted["present"])
    range_, result = struct.pack("QQ", 0, size), ctypes.create_string_buffer(40)
    expect("cachestat()", word(libc.syscall(CACHESTAT, fd, range_, result, 0)), wanted["cachestat"])
    if page > 4096: try_half(fd, ours, page)
    for mapping in (ours, theirs): libc.munmap(ctypes.c_void_p(mapping), ctypes.c_size_t(size))
    os.close(fd)

print(os.uname().release, os.uname().machine)
try_file("tmpfs, pages of 4 KiB", 0, 4096, {"data": "ENXIO", "present": 2, "cachestat": "done"})
add(PAGES)
try:
    try_file("hugetlbfs, pages of 2 MiB", 4, 2 ** 21, {"data": 0, "present": 0, "cachestat": "ENOTSUP"})
finally:
    add(-PAGES)
PYTHON
