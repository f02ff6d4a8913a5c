# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The build root: a Debian 13 with the kernel, compilers and QEMU, and the
# kernel tree prepared in it.

# bootstrap DIR [OPTION...]: a minimal Debian that fetches as the host does.
bootstrap() {
	local dir=$1
	shift
	rm -rf --one-file-system "$dir"
	acquire_settings >"$dir.apt.conf"
	# Documentation is of no use here, and syncing after each file neither:
	# an interrupted step starts over.
	mmdebstrap --mode=root --variant=apt --aptopt="$dir.apt.conf" \
		--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		"$@" "$SUITE" "$dir" - < <(apt_sources "")
	rm -f "$dir.apt.conf"
}

root_userland() {
	# The package lists stay, for the installs that follow.
	bootstrap "$PARTIAL/root" --include=ca-certificates --skip=cleanup/apt/lists
	cp -L /etc/resolv.conf "$PARTIAL/root/etc/resolv.conf"
	# A mirror behind a company's own certificate authority.
	cp -L /etc/ssl/certs/ca-certificates.crt "$PARTIAL/root/etc/ssl/certs/" || true
}

root_install() {
	in_root apt-get -q -y --no-install-recommends install "$@"
}

root_kernel() {
	root_install -t "$BACKPORTS" "${KERNEL_PACKAGES[@]}" "$SOURCE=$SOURCE_VERSION"
}

root_tools() {
	root_install "${ROOT_PACKAGES[@]}"
	in_root apt-get clean
}

kernel_tree() {
	cp "$TOP/scripts/prepare-kdir" "$PARTIAL/root/usr/local/bin/"
	in_root prepare-kdir "$RELEASE" "$LAB/kdir"
}

build_root() {
	step build-root root_userland
	mount_root
	step kernel-packages root_kernel
	step build-tools root_tools
}

build_kdir() {
	step kernel-tree kernel_tree
}
