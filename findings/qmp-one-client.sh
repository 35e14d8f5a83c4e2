#!/bin/sh
# QEMU's QMP socket (-qmp unix:PATH,server=on) serves one client, and refuses nobody: the kernel takes the next connections for it, and
# says yes to them. They get no greeting until the client before them leaves. Two more are let in so. After these, connect() of a socket that
# does not block fails with EAGAIN (not EINPROGRESS: there is nothing to wait for with poll), and connect() of one that does block waits. A
# client that waited in line hears no event of that time: the greeting is the first thing that it reads.
# Guess: the second client is refused, or gets an error in JSON; or EINPROGRESS, as with TCP.
# Fails if any of that changes. Needs python3 and QEMU ($1, or on PATH).
set -eu
exec python3 - "${1:-qemu-system-x86_64}" <<'PYTHON'
import errno, json, os, shutil, socket, subprocess, sys, tempfile, time

folder = tempfile.mkdtemp()
path = f"{folder}/qmp"
print(os.uname().release, subprocess.run([sys.argv[1], "--version"], capture_output=True, text=True).stdout.split("\n")[0])
words = ["-S", "-nodefaults", "-display", "none", "-machine", "none", "-qmp", f"unix:{path},server=on,wait=off"]
qemu = subprocess.Popen([sys.argv[1], *words])

def client():
    one = socket.socket(socket.AF_UNIX)
    one.setblocking(False)
    one.connect(path)
    return one

def read(one, seconds):
    one.settimeout(seconds)
    try:
        return one.recv(65536).decode()
    except TimeoutError:
        return None

try:
    while not os.path.exists(path):
        assert qemu.poll() is None
        time.sleep(0.05)
    first = client()
    greeted = "QMP" in json.loads(read(first, 10))
    waiting, refused = [], None
    while refused is None and len(waiting) < 100:
        try:
            waiting.append(client())
        except OSError as error:
            refused = error.errno
        time.sleep(0.2)
    print("the first is greeted:", greeted)
    print("let in behind it:", len(waiting), "then:", errno.errorcode.get(refused))
    silent = [read(one, 1) for one in waiting]
    print("they read within a second:", silent)
    waits = subprocess.Popen([sys.executable, "-c", f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"])
    time.sleep(2)
    blocks = waits.poll() is None
    print("connect() that blocks is under way after 2 s:", blocks)
    for command in ("qmp_capabilities", "cont", "stop", "cont"):
        first.sendall(json.dumps({"execute": command}).encode())
        time.sleep(0.2)
    events = read(first, 5).count('"event"')
    first.close()
    heard = json.loads(read(waiting[0], 10))
    print("events that the first heard:", events, "the next one's first words:", list(heard))
    waits.kill()
finally:
    qemu.kill()
    qemu.wait()
    shutil.rmtree(folder)
sys.exit(not (greeted and len(waiting) == 2 and refused == errno.EAGAIN and not any(silent) and blocks and list(heard) == ["QMP"]))
PYTHON
