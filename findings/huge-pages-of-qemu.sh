#!/bin/sh
# The kernel never maps QEMU 11.1's memory-backend-memfd and -shm with huge pages, and maps memory-backend-ram,share=on with them: that is
# a memfd, too. THPeligible of /proc/PID/smaps says so, and the distance of each mapping from the 2 MiB of its file says why. Seen on
# Linux 6.18: QEMU puts a page of guard behind a memfd, and behind that page begins a heap of glibc, aligned to 64 MiB. QEMU aligns only
# anonymous memory and memory-backend-ram (QEMU_VMALLOC_ALIGN), and a file as far as align= says. QEMU asks for huge pages
# (MADV_HUGEPAGE) in each case, so that advise is enough, and a tmpfs needs huge= of its own.
# Guess: memfd and shm 4 KiB off, never; file with align=2M aligned, and eligible only where the mount of its tmpfs has huge=;
# ram,share=on a memfd and aligned, alone and behind -numa. All of it is so, but 4 KiB is true only of sizes that are multiples of 2 MiB.
# Fails if ram,share=on is not eligible or memfd is. Needs root, python3 and QEMU 11.1 ($1, or on PATH); sets shmem_enabled to advise while
# it reads.
set -eu
exec python3 - "${1:-qemu-system-x86_64}" <<'PYTHON'
import os, re, signal, subprocess, sys, tempfile, time

POLICY = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
HUGE = 2 ** 21
plain, advised = (tempfile.mkdtemp() for _ in range(2))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1G", "none", plain], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1G,huge=advise", "none", advised], check=True)
machine = ["-machine", "q35,memory-backend=mem", "-m", "256M"]
numa = ["-machine", "q35", "-m", "256M", "-numa", "node,memdev=mem"]
CASES = {
    "memfd": ("memory-backend-memfd", machine),
    "shm": ("memory-backend-shm", machine),
    "file on tmpfs": (f"memory-backend-file,mem-path={plain}", machine),
    "file, align=2M, on tmpfs": (f"memory-backend-file,align=2M,mem-path={plain}", machine),
    "file, align=2M, on tmpfs with huge=advise": (f"memory-backend-file,align=2M,mem-path={advised}", machine),
    "ram": ("memory-backend-ram", machine),
    "memfd, numa": ("memory-backend-memfd", numa),
    "ram, numa": ("memory-backend-ram", numa),
}

def memory(pid):
    """Each mapping of 256 MiB: its name, its distance from 2 MiB of its file, THPeligible and its flags."""
    found = []
    for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", open(f"/proc/{pid}/smaps").read())[1:]:
        head = part.split("\n")[0].split(None, 5)
        start, end = (int(each, 16) for each in head[0].split("-"))
        if end - start != 256 * 2 ** 20: continue
        off = (start - int(head[2], 16)) % HUGE
        eligible = re.search(r"THPeligible:\s+(\d)", part).group(1)
        advice = "hg" in re.search(r"VmFlags: (.*)", part).group(1).split()
        found.append((head[1], head[5] if len(head) > 5 else "", off - HUGE if off > HUGE / 2 else off, eligible, advice))
    return found

print(os.uname().release, subprocess.run([sys.argv[1], "--version"], capture_output=True, text=True).stdout.split("\n")[0])
running = {}
for name, (backend, rest) in CASES.items():
    words = [sys.argv[1], "-S", "-nodefaults", "-display", "none", "-run-with", "exit-with-parent=on"]
    running[name] = subprocess.Popen(words + ["-object", f"{backend},id=mem,size=256M,share=on"] + rest)
for process in running.values():
    while not memory(process.pid):
        assert process.poll() is None
        time.sleep(0.05)
before = re.search(r"\[(\w+)\]", open(POLICY).read()).group(1)
try:
    open(POLICY, "w").write("advise")
    seen = {name: memory(process.pid) for name, process in running.items()}
finally:
    open(POLICY, "w").write(before)
    for process in running.values():
        process.kill()
        process.wait()
    for mount in (plain, advised):
        subprocess.run(["umount", "--lazy", mount], check=True)
        os.rmdir(mount)
for name, found in seen.items():
    for mode, path, off, eligible, advice in found:
        print(f"{name:45} {mode} {path:45} {off:6} off  THPeligible {eligible}  {'advised' if advice else ''}")
sys.exit(seen["ram"][0][3] != "1" or seen["memfd"][0][3] != "0")
PYTHON
