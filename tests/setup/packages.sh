# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# What is installed where. No version is pinned: a mirror drops old ones.

SUITE=trixie
BACKPORTS=trixie-backports

# From backports, together: linux-headers pulls libelf1t64 from there, which
# only backports' own libelf-dev fits. linux-source-X.Y joins them when the
# resolver knows X.Y.
KERNEL_PACKAGES=(linux-image-amd64 linux-headers-amd64 libelf-dev)

# From trixie itself, above all rustc: the kernel was built with that one.
ROOT_PACKAGES=(make gcc gcc-14 libc6-dev rustc rust-src bindgen clang libclang-dev
	flex bison bc libssl-dev kmod cpio xz-utils zstd python3 binutils
	cargo rustfmt rust-clippy
	qemu-system-x86 qemu-utils gnuplot-nox fonts-dejavu-core
	squashfs-tools busybox-static
	build-essential debhelper dh-dkms dkms lintian)

# What an administrator's dom0 has, plus the tests' tools.
DOM0_PACKAGES=(xen-system-amd64 xenstore-utils fio socat kmod procps util-linux
	iproute2 dmsetup e2fsprogs strace grub-xen-host trace-cmd qemu-system-xen)

# One program of each is all that guests need: their dependencies are not
# installed (stress-ng's include a graphics stack).
GUEST_PACKAGES=(stress-ng)

# Majors with which this recipe was last seen to work, and the package each is
# read from. Others may work as well: the lab warns and goes on.
PROVEN=(
	"kernel linux-image-amd64 7.3"
	"xen xen-system-amd64 4.20"
	"qemu qemu-system-x86 10.0"
	"rustc rustc 1.85"
)

# Free space that a cold build, and the hosts that are saved later, need below the
# cache directory.
NEED_MB=12000
