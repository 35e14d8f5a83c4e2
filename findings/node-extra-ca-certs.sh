#!/bin/sh
# Node 20 reads and decodes every certificate of NODE_EXTRA_CA_CERTS at each start, also of a program that makes no TLS connection. With
# the 140 or so of Debian's ca-certificates an empty program takes half as long again (seen: 82 ms of CPU without, 126 ms with).
# Guess: they are read with the first TLS context, as the certificates that Node brings along are.
# Fails if the ratio of CPU is below 1.15. Needs Node, Debian's ca-certificates and python3.
set -eu
certificates=/etc/ssl/certs/ca-certificates.crt
echo "node $(node --version), $(grep -c BEGIN $certificates) certificates"
# CPU milliseconds of twenty starts.
starts() {
  python3 -c 'import resource, subprocess
for _ in range(20): subprocess.run(["node", "-e", "0"], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(round(1000 * (used.ru_utime + used.ru_stime)))'
}
unset NODE_EXTRA_CA_CERTS
without=$(starts)
with=$(NODE_EXTRA_CA_CERTS=$certificates starts)
echo "twenty starts: $without ms of CPU without, $with ms with"
[ $((100 * with)) -ge $((115 * without)) ]
