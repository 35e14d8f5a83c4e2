#!/bin/sh
# A guest whose RAM is a file in memory that QEMU maps privately (share=off) takes that RAM from the host twice once the guest has written all of it:
# Linux fills a page of the file for each page that is written, and then copies that page. /proc/PID/status shows the copies alone: RssAnon has
# them, and RssShmem has nothing, because the file's pages are mapped no more; the blocks of the file have the rest, and a cgroup counts both. QEMU's
# memory-backend-file is private by default and memory-backend-memfd is not, so this is what -object memory-backend-file does with a path in
# /dev/shm and nothing else.
# Guess: memory is taken once in each case, as it is for memory that maps no file, and RssAnon tells of all of it.
# Fails if a private file in memory costs once, or a shared one twice. Needs root, python3 and QEMU 11.1 ($1, or on PATH).
set -eu
exec python3 - "${1:-qemu-system-x86_64}" <<'PYTHON'
import os, re, subprocess, sys, tempfile, time

MIB = 2 ** 20
SIZE = 256
tmpfs = tempfile.mkdtemp()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1G", "none", tmpfs], check=True)
CASES = {
    "file": f"memory-backend-file,mem-path={tmpfs}",
    "file,share=on": f"memory-backend-file,mem-path={tmpfs},share=on",
    "memfd": "memory-backend-memfd",
    "memfd,share=off": "memory-backend-memfd,share=off",
    "ram": "memory-backend-ram",
}

def status(pid, name):
    return int(re.search(rf"{name}:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) // 1024

def blocks(pid):
    """Of files in memory that QEMU has open."""
    total = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = os.readlink(f"/proc/{pid}/fd/{fd}")
        if "memfd" in path or path.startswith(tmpfs):
            total += os.stat(f"/proc/{pid}/fd/{fd}").st_blocks * 512 // MIB
    return total

print(os.uname().release, subprocess.run([sys.argv[1], "--version"], capture_output=True, text=True).stdout.split("\n")[0])
print(f"{SIZE} MiB, written as a whole (prealloc=on): MiB")
wrong = []
try:
    for name, backend in CASES.items():
        words = [sys.argv[1], "-S", "-nodefaults", "-display", "none", "-run-with", "exit-with-parent=on", "-m", f"{SIZE}M"]
        words += ["-object", f"{backend},id=mem,size={SIZE}M,prealloc=on", "-machine", "q35,memory-backend=mem"]
        qemu = subprocess.Popen(words)
        try:
            while max(status(qemu.pid, "RssAnon"), status(qemu.pid, "RssShmem")) < SIZE:
                assert qemu.poll() is None
                time.sleep(0.1)
            time.sleep(0.5)
            anonymous, shared, file = status(qemu.pid, "RssAnon"), status(qemu.pid, "RssShmem"), blocks(qemu.pid)
        finally:
            qemu.kill()
            qemu.wait()
        private = anonymous >= SIZE
        print(f"{name:16} RssAnon {anonymous:4}  RssShmem {shared:4}  blocks of the file {file:4}")
        twice = private and file >= SIZE
        if twice != (name in ("file", "memfd,share=off")): wrong.append(name)
finally:
    subprocess.run(["umount", tmpfs], check=True)
    os.rmdir(tmpfs)
sys.exit(f"not as before: {', '.join(wrong)}" if wrong else 0)
PYTHON
