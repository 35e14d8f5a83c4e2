#!/bin/sh
# SIGTSTP stops no process of an orphaned process group (setpgid(2): no shell could continue it): the signal is discarded, and a
# program that waits for SIGCONT after it waits for ever. SIGSTOP stops it all the same.
# Fails if the kernel does otherwise. Needs util-linux (setsid).
set -eu
uname -sr
said=$(setsid --wait sh -c 'kill -TSTP $$; echo "SIGTSTP: went on"')
echo "$said"
[ "$said" = 'SIGTSTP: went on' ]
setsid sh -c 'kill -STOP $$; echo "SIGSTOP: went on"' &
pid=$!
sleep 1
# setsid forks only if it leads a group already.
state=$(sed -n 's/^State:\t//p' "/proc/$pid/status")
echo "SIGSTOP: $state"
kill -KILL "$pid"
case $state in T*) ;; *) exit 1 ;; esac
