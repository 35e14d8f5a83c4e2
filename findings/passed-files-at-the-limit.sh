#!/bin/sh
# A process at its limit of open files that receives files over a Unix socket gets no EMFILE: recvmsg() succeeds, delivers as many of the files as fit,
# and says MSG_CTRUNC, the same word as for a control buffer that is too small, although the buffer has room for all of them. The message
# and the other files are gone: to receive again brings nothing. Looked at with MSG_PEEK, the message stays, and brings all files later.
# Guess: recvmsg() fails with EMFILE, as accept() and open() do, and the message can be received again once there is room.
# Seen on Linux 6.18. Fails if the kernel does otherwise. Needs python3.
set -eu
exec python3 - <<'PYTHON'
import array, os, platform, resource, socket

SENT, FREE = 3, 1
print(platform.system(), platform.release())

def expect(what, seen, wanted):
    print(f"  {what:52} {seen}")
    if seen != wanted:
        raise SystemExit(f"the kernel did otherwise: {wanted} was expected")

def receive(end, flags=0):
    """Bytes, number of files and whether the control data was cut, or the word of the error."""
    try:
        data, control, said, _ = end.recvmsg(16, socket.CMSG_SPACE(253 * 4), flags | socket.MSG_DONTWAIT)
    except OSError as error:
        return type(error).__name__
    files = array.array("i")
    for _, _, part in control:
        files.frombytes(part)
    for file in files:
        os.close(file)
    return len(data), len(files), bool(said & socket.MSG_CTRUNC)

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def is_open(number):
    try:
        return bool(os.fstat(number))
    except OSError:
        return False

def leave(free):
    """The process may open `free` files more."""
    most = 0
    while free > 0 or is_open(most):
        free -= not is_open(most)
        most += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sender.fileno()] * SENT))]

def send():
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    sender.sendmsg([b"message"], carried)
    leave(FREE)

print(f"{SENT} files come to a process that may open {FREE} more: bytes, files, MSG_CTRUNC")
send()
expect("received", receive(receiver), (7, FREE, True))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
expect("received again, without the limit", receive(receiver), "BlockingIOError")
send()
expect("looked at", receive(receiver, socket.MSG_PEEK), (7, FREE, True))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
expect("received, without the limit", receive(receiver), (7, SENT, False))
PYTHON
