#!/bin/sh
# Node asks the kernel twice for each time that it sleeps. Its event loop measures how long it is idle (performance.eventLoopUtilization()),
# for which libuv first calls epoll_pwait() with a timeout of 0 and, when nothing is there, a second time with the real one
# (UV_METRICS_IDLE_TIME; uv_loop_configure() can set it and has nothing to take it back). So a program that answers one
# event after the other makes one system call an event more than its work needs, and no option of node leaves it out.
# Guess: one epoll_pwait() for each event that wakes the process.
# Seen with Node 20.20.2 (libuv 1.46.0) on Linux 6.18: 103 wake-ups by bytes that came 20 ms apart took 203 calls, 106 of them
# with a timeout of 0.
# Fails if there are fewer than 1.8 calls a byte. Needs node and strace.
set -eu
node -p '`Node ${process.versions.node}, libuv ${process.versions.uv}`'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/reads.mjs" <<'JS'
import { Socket } from 'node:net';
new Socket({ fd: 0, readable: true, writable: false }).on('data', () => undefined);
JS
{ sleep 2; for n in $(seq 100); do printf x; sleep 0.02; done; sleep 1; } |
	strace -e trace=epoll_pwait -o "$folder/calls" node "$folder/reads.mjs"
# Before the first byte, Node starts.
sed -n '/= 1$/,$p' "$folder/calls" | awk '
	/= 1$/ { bytes++ }
	{ calls++ }
	/, 0, NULL/ { at_once++ }
	END {
		printf "%d wake-ups: %d calls of epoll_pwait(), %d of them with a timeout of 0\n", bytes, calls, at_once
		exit calls < 1.8 * bytes
	}'
