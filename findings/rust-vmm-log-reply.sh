#!/bin/sh
# The answer to VHOST_USER_SET_LOG_BASE that rust-vmm's `vhost` 0.13 takes (Debian 13: librust-vhost-dev 0.13.0) is the ack of any request,
# eight bytes of zero, and that only where REPLY_ACK was acked and the request asked for one. The reply that the specification has for this
# request, with the payload of the request (16 bytes, which QEMU's libvhost-user and QEMU itself take), is "backend internal error" there, and its last
# eight bytes stay in the socket. Since 0.16 the same call waits for these 16 bytes and never ends with eight. No answer suits both, and no
# message says which of them a VMM has: a migration that logs dirty pages works with back-ends made for one of them.
# Guess: the library takes the reply of the specification in each version.
# Fails if 0.13 takes 16 bytes or refuses eight. Needs root, mmdebstrap, python3 and Debian's packages (900 MB while it runs, half a minute).
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
# shellcheck disable=SC2016 # apt expands these
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
  awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')
mmdebstrap --variant=extract --quiet --include=cargo,gcc-14,libc6-dev,librust-vhost-dev,dash,coreutils,base-files \
  trixie "$root" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main"
ln -sf gcc-14 "$root/usr/bin/cc"
mkdir -p "$root/proc" "$root/source/.cargo" "$root/source/src"
[ -e "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
cat >"$root/source/.cargo/config.toml" <<'END'
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/share/cargo/registry"
END
cat >"$root/source/Cargo.toml" <<'END'
[package]
name = "log-reply"
version = "0.0.0"
edition = "2021"
[dependencies]
vhost = { version = "=0.13.0", features = ["vhost-user-frontend"] }
END
cat >"$root/source/src/main.rs" <<'END'
use std::os::fd::AsRawFd;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let mut frontend = Frontend::connect(path, 1).unwrap();
    frontend.set_features(frontend.get_features().unwrap()).unwrap();
    let offered = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(offered & (VhostUserProtocolFeatures::LOG_SHMFD | VhostUserProtocolFeatures::REPLY_ACK)).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let log = std::fs::File::options().read(true).write(true).create(true).truncate(true).open("/log").unwrap();
    log.set_len(4096).unwrap();
    let region = VhostUserDirtyLogRegion { mmap_size: 4096, mmap_offset: 0, mmap_handle: log.as_raw_fd() };
    match frontend.set_log_base(0, Some(region)) {
        Ok(()) => println!("taken"),
        Err(error) => println!("{error}"),
    }
}
END
chroot "$root" env HOME=/source CARGO_HOME=/source/.home sh -c 'cd /source && cargo build --quiet --release --offline'
exec python3 - "$root" <<'PYTHON'
import os, socket, struct, subprocess, sys

root = sys.argv[1]
GET_FEATURES, SET_LOG_BASE, GET_PROTOCOL_FEATURES = 1, 6, 15
OFFERED = {GET_FEATURES: 1 << 30, GET_PROTOCOL_FEATURES: 1 << 1 | 1 << 3}

def answer(reply_of):
    """What the library says of this reply to SET_LOG_BASE."""
    path = os.path.join(root, "socket")
    if os.path.exists(path): os.unlink(path)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    frontend = subprocess.Popen(["chroot", root, "/source/target/release/log-reply", "/socket"], stdout=subprocess.PIPE, text=True)
    peer, _ = listening.accept()
    while True:
        try: head = peer.recv(12)
        except ConnectionResetError: break  # It ended with bytes that it had not read.
        if not head: break
        request, flags, size = struct.unpack("<III", head)
        payload = peer.recv(size) if size else b""
        if request in OFFERED: reply = struct.pack("<Q", OFFERED[request])
        elif request == SET_LOG_BASE: reply = reply_of(payload)
        else: continue
        peer.sendall(struct.pack("<III", request, 5, len(reply)) + reply)
    peer.close()
    return frontend.communicate()[0].strip()

eight = answer(lambda payload: bytes(8))
sixteen = answer(lambda payload: payload)
print("eight bytes of zero: %s; the payload of the request: %s" % (eight, sixteen))
sys.exit(eight != "taken" or sixteen == "taken")
PYTHON
