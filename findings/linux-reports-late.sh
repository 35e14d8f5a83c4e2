#!/bin/sh
# Linux's free page reporting leaves out memory that is free because of single pages that the kernel keeps on its per-CPU lists. Those
# lists grow by themselves since Linux 6.7 (to 34 MiB in a guest of 512 MiB), and the kernel reports blocks of 2 MiB that are free as a
# whole: one kept page in each is enough. Seen with QEMU 11.1.3 and Linux 6.12.117, whose guest fills two files of a tmpfs at the same time,
# 250 MiB and one page for each 2 MiB of these, and removes the large one and then the small one: of 196 MiB, 24 were reported within 20 s,
# with ACPI and without. When the lists are emptied (vm.percpu_pagelist_high_fraction=1000, or a compaction), all of it was reported within
# 10 s. Without the small file, the same memory is reported at once. Whoever measures free page reporting, or waits for it, meets that.
# Guess: memory that is free is reported after the 2 s that mm/page_reporting.c waits, whatever was free before it and after it.
# Fails if that is not so. Needs python3, QEMU ($1), a Linux for x86-64 ($2: Debian's linux-image-cloud-amd64 6.12), its
# virtio_balloon.ko, unpacked ($3), and a static busybox ($4: Debian's busybox-static).
set -eu
exec python3 - "$@" <<'PYTHON'
import re, subprocess, sys, tempfile, time

qemu, kernel, module, busybox = sys.argv[1:5]
INIT = b"""PATH=/
for name in mkdir mount insmod dd rm sleep cat uname grep reboot; do /busybox ln -s /busybox /$name; done
mkdir /proc /files /sys; mount -t proc none /proc; mount -t tmpfs -o huge=never none /files; insmod /balloon.ko
fill() { n=0; while [ $n -lt 125 ]; do dd if=/dev/zero bs=64k count=32 >>/files/large 2>/null; $1; n=$((n + 1)); done; }
beside() { dd if=/dev/zero bs=4k count=1 >>/files/small 2>/null; }
mount -t devtmpfs none /dev; : >/null
fill :; rm /files/large; sleep 20; echo "alone $(uname -r)"; sleep 5
fill beside; echo filled; sleep 5; rm /files/large; rm /files/small; sleep 20; echo kept; sleep 5
echo 1000 >/proc/sys/vm/percpu_pagelist_high_fraction; n=0; while [ $n -lt 30 ]; do cat /busybox >/null; n=$((n + 1)); done
sleep 10; echo emptied; sleep 5
reboot -f
"""

def entry(name, mode, data=b"", major=0, minor=0):
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % each for each in fields) + name + b"\0"
    pad = lambda part: part + b"\0" * (-len(part) % 4)
    return pad(head) + pad(data)

archive = tempfile.NamedTemporaryFile()
archive.write(entry(b"busybox", 0o100755, open(busybox, "rb").read()) + entry(b"balloon.ko", 0o100644, open(module, "rb").read())
              + entry(b"script", 0o100644, INIT) + entry(b"dev", 0o40755) + entry(b"dev/console", 0o20600, major=5, minor=1)
              + entry(b"TRAILER!!!", 0))
archive.flush()
words = ["-accel", "tcg", "-cpu", "Nehalem-v1", "-machine", "pc", "-m", "512M", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
words += ["-device", "virtio-balloon-pci,free-page-reporting=on", "-kernel", kernel, "-initrd", archive.name]
words += ["-append", "console=ttyS0 quiet no_timer_check panic=-1 rdinit=/busybox -- sh /script"]
print(subprocess.run([qemu, "--version"], capture_output=True, text=True).stdout.split("\n")[0])
vm = subprocess.Popen([qemu, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
seen = {}
for line in vm.stdout:
    found = re.search(r"(alone|filled|kept|emptied)( \d\S*)?", line)
    if not found: continue
    status = open(f"/proc/{vm.pid}/status").read()
    seen[found[1]] = int(re.search(r"RssAnon:\s+(\d+)", status)[1]) // 1024
    print(f"{found[1]}{found[2] or ''}: QEMU has {seen[found[1]]} MiB on the host")
vm.wait()
held = seen["filled"] - seen["alone"]
print(f"of {held} MiB, {seen['filled'] - seen['kept']} were reported while the lists kept pages, and {seen['filled'] - seen['emptied']} after that")
sys.exit(not (seen["filled"] - seen["kept"] < held / 4 and seen["filled"] - seen["emptied"] > held * 3 / 4))
PYTHON
