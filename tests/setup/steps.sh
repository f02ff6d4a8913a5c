# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Steps of the cold build: each has a log, a stamp and a time, and says one
# clear sentence when it fails.

# why LOG: the one sentence for the failure that LOG ends with.
why() {
	local log=$1
	if grep -q -i 'no space left on device' "$log"; then
		echo "the disk that holds $CACHE is full (a cold build needs $NEED_MB MB)"
	elif grep -q -E 'Temporary failure resolving|Could not resolve|Could not connect|Unable to connect|Failed to fetch|Network is unreachable|Connection (timed out|failed)' "$log"; then
		echo "the Debian mirror $MIRROR cannot be reached (choose another one with MIRROR=URL)"
	elif grep -q 'NO_PUBKEY' "$log"; then
		echo "this host's debian-archive-keyring is too old for Debian $SUITE: apt-get install --only-upgrade debian-archive-keyring"
	elif grep -q -E "Unable to locate package|has no installation candidate|was not found" "$log"; then
		echo "the Debian mirror $MIRROR lacks a package: $(grep -m1 -o -E "Unable to locate package .*|Package .* has no installation candidate|Version .* was not found" "$log")"
	elif grep -q 'prepare-kdir: error:' "$log"; then
		sed -n 's/^prepare-kdir: error: //p' "$log" | head -n1
	else
		echo "step \"$2\" failed"
	fi
}

# step NAME FUNCTION: runs FUNCTION unless an earlier, interrupted build of the
# same lab finished it.
step() {
	local name=$1 function=$2 log=$PARTIAL/log/$1.log begin=$SECONDS
	if [ -e "$PARTIAL/stamp/$name" ]; then
		say "$name: kept from an earlier run"
		return
	fi
	say "$name ..."
	# Not "if (...)": that would switch off set -e in the function.
	(set -e -x; "$function") >"$log" 2>&1 </dev/null &
	if ! wait "$!"; then
		cp "$log" "$CACHE/failed-$name.log" 2>/dev/null && log=$CACHE/failed-$name.log
		die "$(why "$log" "$name"); log: $log"
	fi
	: >"$PARTIAL/stamp/$name"
	say "$name: $((SECONDS - begin)) s"
}

# parallel FUNCTION...: runs all, returns when all are done, exits at the first
# failure. This is PID 1 of a namespace, so that the others end with it.
parallel() {
	local function
	for function in "$@"; do
		"$function" &
	done
	for function in "$@"; do
		wait -n || exit 1
	done
}

# in_root CMD...: in the build root, with the lab where it will finally be.
# Absolute paths in the kernel tree's make files stay true after the rename.
in_root() {
	chroot "$PARTIAL/root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive INITRD=No \
		${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
		ROOT="$LAB/root" LAB="$LAB" RELEASE="$RELEASE" "$@"
}

# Once per process tree: these mounts live in the build's own namespace.
mount_root() {
	local root=$PARTIAL/root
	mountpoint -q "$root/proc" && return
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mkdir -p "$root$LAB"
	mount --bind "$PARTIAL" "$root$LAB"
}
