#!/bin/sh
# A guest that suspends to RAM: QEMU says SUSPEND and, when it is woken, WAKEUP. It says neither STOP nor RESUME, though its virtual processors
# stand still and query-status answers "running": false meanwhile. `cont` of such a guest is no error and does nothing. `stop` says STOP, and
# query-status "paused"; system_wakeup is an error then. `cont` after that says RESUME, and the guest sleeps on: a program that goes by STOP and
# RESUME takes a VM for running whose processors stand still.
# Guess: STOP and RESUME come with sleep and waking, as with every other way in which a VM stands still; cont wakes the guest, or is an error.
# Fails if any of that changes. The guest is a boot sector that does nothing but sleep. Needs python3 and QEMU ($1, or on PATH).
set -eu
exec python3 - "${1:-qemu-system-x86_64}" <<'PYTHON'
import json, os, shutil, socket, subprocess, sys, tempfile, time

# Writes "sleep of kind S3" to the control register of the PC's power management, and halts.
SECTOR = bytes.fromhex("fa ba0406 b80024 ef f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"
folder = tempfile.mkdtemp()
disk = f"{folder}/disk"
with open(disk, "wb") as file:
    file.write(SECTOR.ljust(1 << 20, b"\0"))
print(os.uname().release, subprocess.run([sys.argv[1], "--version"], capture_output=True, text=True).stdout.split("\n")[0])
ours, theirs = socket.socketpair()
words = ["-nodefaults", "-display", "none", "-machine", "pc", "-m", "32M", "-drive", f"if=ide,format=raw,snapshot=on,file={disk}"]
words += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-object", "monitor-qmp,id=monitor,chardev=qmp"]
qemu = subprocess.Popen([sys.argv[1], *words], pass_fds=[theirs.fileno()])
theirs.close()
lines = ours.makefile()
events = []

def ask(command):
    ours.sendall(json.dumps({"execute": command}).encode())
    while True:
        message = json.loads(lines.readline())
        if "event" in message:
            events.append(message["event"])
        elif "QMP" not in message:
            return message.get("return", message.get("error", {}).get("desc"))

def status_becomes(wanted):
    for _ in range(100):
        status = ask("query-status")
        if status["status"] == wanted:
            return status
        time.sleep(0.1)
    return status

try:
    ask("qmp_capabilities")
    asleep = status_becomes("suspended")
    print("asleep:", asleep, events)
    cont = ask("cont")
    print("cont:", cont, ask("query-status"), events)
    events.clear()
    stop = ask("stop"), ask("query-status"), list(events)
    print("stop:", stop)
    early = ask("system_wakeup"), ask("query-status")
    print("wakeup of one that is paused:", early)
    events.clear()
    again = ask("cont"), ask("query-status"), list(events)
    print("cont:", again)
    events.clear()
    woken = ask("system_wakeup"), ask("query-status")
    time.sleep(0.2)
    ask("query-status")
    print("woken:", woken, events)
    still = {"status": "suspended", "running": False}
    same = asleep == still and cont == {} and stop == ({}, {"status": "paused", "running": False}, ["STOP"])
    same = same and "not in suspended state" in early[0] and again == ({}, still, ["RESUME"])
    same = same and woken[1]["running"] and events[0] == "WAKEUP" and "RESUME" not in events
finally:
    qemu.kill()
    qemu.wait()
    shutil.rmtree(folder)
sys.exit(not same)
PYTHON
