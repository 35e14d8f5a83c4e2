#!/bin/sh
# A process that has a context of Linux's asynchronous I/O (io_setup(2)), used or not, takes a grace period of RCU longer to end,
# also after SIGKILL (fs/aio.c: exit_aio waits). Seen on Linux 6.18, 2 CPUs at rest: 1 ms without, 20 to 70 ms with. Whoever waits
# for its end, such as a supervisor that starts it again, waits as long.
# Guess: io_setup costs memory, and nothing at the end.
# Fails if the median with is not 3 times the median without. Needs python3 on x86-64 or arm64.
set -eu
uname -sr
exec python3 - <<'PYTHON'
import ctypes, os, platform, signal, statistics, sys, time

IO_SETUP = {"x86_64": 206, "aarch64": 0}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)

def end_ms(with_aio):
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        context = ctypes.c_ulong(0)
        if with_aio and libc.syscall(IO_SETUP, 8, ctypes.byref(context)) != 0:
            os._exit(1)
        os.write(tell, b"x")
        time.sleep(60)
    os.read(ready, 1)
    os.close(ready); os.close(tell)
    begun = time.monotonic()
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    return 1000 * (time.monotonic() - begun)

without, with_aio = ([end_ms(aio) for _ in range(21)] for aio in (False, True))
print("from SIGKILL to waitpid, median of 21: %.1f ms without, %.1f ms with" % (statistics.median(without), statistics.median(with_aio)))
sys.exit(statistics.median(with_aio) < 3 * statistics.median(without))
PYTHON
