#!/bin/sh
# A module that DKMS cannot build for a newer kernel keeps Debian from installing that kernel: apt ends with an error and leaves the kernel's
# package unconfigured and without an initramfs, although the kernel has a driver of its own for the same device. apt-get purge of the
# module's package finishes the installation.
# Guess: DKMS warns, the kernel is installed all the same, and the guest boots with the kernel's own driver.
# Seen with dkms 3.2.2 and linux-image-cloud-amd64 of Debian 13. Fails if that changes. Needs root, mmdebstrap and Debian's archive; takes
# some minutes and 2 GB below TMPDIR.
set -eu
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# shellcheck disable=SC2016 # apt expands these
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
  awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')
work=$(mktemp -d)
root=$work/root
trap 'umount "$root/proc" 2>/dev/null || :; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mmdebstrap --quiet --mode=root --variant=minbase --include=dkms,initramfs-tools trixie "$root" \
  "deb [signed-by=$keyring] $mirror trixie main"
mount -t proc proc "$root/proc"
inside() {
  chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"
}

# A package with a module that no kernel can build, as the module's packages of Debian are made.
source=$root/usr/src/unbuildable-1
mkdir -p "$source"
echo 'obj-m := unbuildable.o' >"$source/Makefile"
echo '#error it cannot be built' >"$source/unbuildable.c"
cat >"$source/dkms.conf" <<'END'
PACKAGE_NAME="unbuildable"
PACKAGE_VERSION="1"
BUILT_MODULE_NAME[0]="unbuildable"
DEST_MODULE_LOCATION[0]="/updates/dkms"
AUTOINSTALL="yes"
END
inside dkms add unbuildable/1 >/dev/null

cp /etc/resolv.conf "$root/etc/resolv.conf"
inside apt-get update >/dev/null
failed=0
inside apt-get install --yes --no-install-recommends linux-image-cloud-amd64 linux-headers-cloud-amd64 >"$work/log" 2>&1 || failed=$?
image=$(inside dpkg-query --show --showformat '${Package}\n' 'linux-image-6*' | grep -v meta | head -n 1)
state() {
  inside dpkg-query --show --showformat '${db:Status-Abbrev}' "$1" | tr -d ' '
}
initramfs() {
  (cd "$root/boot" && ls initrd* 2>/dev/null) || echo none
}
echo "dkms $(inside dpkg-query --show --showformat '${Version}' dkms), $image $(inside dpkg-query --show --showformat '${Version}' "$image")"
grep -E 'Error!|dkms: ' "$work/log" | tail -n 3
before=$(state "$image")
echo "apt-get ends with $failed; $image is $before; initramfs: $(initramfs)"
inside dkms remove unbuildable/1 --all >/dev/null
inside dpkg --configure -a >/dev/null 2>&1
after=$(state "$image")
echo "without the module: $image is $after; initramfs: $(initramfs)"
[ "$failed" = 100 ] && [ "$before" = iF ] && [ "$after" = ii ]
