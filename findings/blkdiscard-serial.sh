#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# While a device carries out a BLKDISCARD, other discards, buffered I/O and even lseek(2) wait.
# Usage: blkdiscard-serial.sh
#
# Version: Linux 6.1.176-1 (linux-image-6.1.0-50-cloud-amd64 of Debian 12), null_blk with a hardware
# queue of 64 entries that answers each request after 1 s, blkdiscard of util-linux 2.38.1, dd of
# busybox 1.35.0. Linux 6.12.117-1~deb12u1 does the same:
# KERNEL=linux-image-6.12.117+deb12-cloud-amd64=6.12.117-1~deb12u1 findings/blkdiscard-serial.sh
#
# Behaviour: the ioctls BLKDISCARD and BLKZEROOUT hold the lock of the device's inode until the
# device has answered.
# 1. Eight processes that discard different blocks of one device keep one request in flight, and
#    take eight times as long as one; eight direct reads or writes take as long as one.
# 2. A buffered read or write of any other block waits for all discards that were called before it,
#    and so does lseek(2), even on a descriptor that is used for direct I/O only. dd has that in its
#    skip= and seek=: what it then measures is the lock, not the device.
# 3. That wait is uninterruptible: SIGKILL does not end it.
# 4. Direct reads and writes that do not seek are not held up.
#
# A good engineer would have guessed: a discard is one more request of a queue, and as many are in
# flight as there are callers, up to the queue's depth; only I/O to the blocks that are discarded
# waits for them; lseek(2) on a block device changes a number in memory and cannot block. Neither
# blkdiscard(8), which speaks of O_EXCL only (without --force all but one fail with EBUSY), nor
# lseek(2), nor a page of the kernel's documentation that we found says otherwise.
#
# A backend with slow discards is not seen to its depth by any number of blkdiscard processes, and a
# program that hangs in state D in lseek(2) has nothing to do with the request that hangs.
#
# Output seen (the guest's clock, seconds):
#
#   Linux 6.1.0-50-cloud-amd64
#   eight at once      seconds  most in flight
#   direct_read           1.05  8
#   direct_write          1.05  8
#   discard               8.14  1
#   zeroout               8.14  1
#
#   beside 4 discards  seconds
#   direct_read           1.01
#   direct_write          1.02
#   buffered_read         4.86
#   buffered_write        4.86
#   lseek                 3.86
#   lseek_SIGKILL         3.86
#
# Exits 0 if it is still so, 1 if something is different, 2 if it could not be tried. Needs apt with
# Debian 12's lists (apt-get update) on amd64, and no root. The packages go into a temporary
# directory. The guest's clock counts instructions (-icount), so other load does not change it.
set -euo pipefail

KERNEL=${KERNEL:-linux-image-6.1.0-50-cloud-amd64=6.1.176-1}
PACKAGES=(qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3 busybox-static=1:1.35.0-4+deb12u1+b1
	util-linux=2.38.1-5+deb12u3)

die() { echo "${0##*/}: $*" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
release=${KERNEL%%=*}
release=${release#linux-image-}

# The packages with all that they depend on, as for a host that has nothing, so that nothing of this
# host is used.
install_packages() {
	local list package
	mkdir "$work/packages" "$tree"
	: >"$work/status"
	list=$(apt-get -qq -s -o "Dir::State::status=$work/status" install --no-install-recommends \
		"${PACKAGES[@]}" | sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1=\2/p')
	[ -n "$list" ] || die "apt does not know ${PACKAGES[*]}"
	# shellcheck disable=SC2086 # a word is a package
	(cd "$work/packages" && apt-get -qq -o APT::Sandbox::User=root download "$KERNEL" $list) ||
		die "cannot download the packages"
	for package in "$work"/packages/*.deb; do
		dpkg -x "$package" "$tree"
	done
	rm -r "$work/packages"
}

# Writes the guest's program; it prints lines that begin with "row".
write_init() {
	cat >"$1" <<-'EOI'
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		mount -t devtmpfs devtmpfs /dev
		insmod /configfs.ko
		mount -t configfs configfs /sys/kernel/config
		insmod /null_blk.ko nr_devices=0
		device=/sys/kernel/config/nullb/nullb0
		mkdir $device
		echo 1 >$device/memory_backed
		echo 1 >$device/discard
		echo 64 >$device/size
		echo 64 >$device/hw_queue_depth
		# Answered by a timer, after so many ns.
		echo 2 >$device/irqmode
		echo 1000000000 >$device/completion_nsec
		echo 1 >$device/power

		now() { cut -d' ' -f1 /proc/uptime; }
		run() { "$@" >/dev/null 2>&1 || echo "failed: $*"; }
		# By its path: busybox has a blkdiscard, too, but without --force.
		discard() {
			run /sbin/blkdiscard $2 --force --offset $(($1 * 4096)) --length 4096 /dev/nullb0
		}
		zeroout() { discard $1 --zeroout; }
		direct_read() { run dd if=/dev/nullb0 of=/dev/null bs=4096 count=1 skip=$1 iflag=direct; }
		direct_write() { run dd if=/dev/zero of=/dev/nullb0 bs=4096 count=1 seek=$1 oflag=direct; }

		# parallel OPERATION: eight at once; prints the most that were in flight.
		parallel() {
			begin=$(now)
			processes=
			for block in 10 20 30 40 50 60 70 80; do
				$1 $block &
				processes="$processes $!"
			done
			touch /watch
			while [ -e /watch ]; do
				awk '{ print $1 + $2 }' /sys/block/nullb0/inflight
				usleep 100000
			done >/inflight &
			wait $processes
			end=$(now)
			rm /watch
			wait
			echo "row parallel $1 $begin $end $(sort -n /inflight | tail -n1)"
		}

		# beside OPERATION COMMAND...: called 0.2 s after four discards.
		beside() {
			what=$1
			shift
			echo 3 >/proc/sys/vm/drop_caches
			for block in 10 20 30 40; do
				discard $block &
			done
			usleep 200000
			status=0
			begin=$(now)
			"$@" >/dev/null 2>&1 || status=$?
			echo "row beside $what $begin $(now) $status"
			wait
		}

		parallel direct_read
		parallel direct_write
		parallel discard
		parallel zeroout
		# dd seeks if skip= or seek= is not 0.
		beside direct_read dd if=/dev/nullb0 of=/dev/null bs=4096 count=1 iflag=direct
		beside direct_write dd if=/dev/zero of=/dev/nullb0 bs=4096 count=1 oflag=direct
		beside buffered_read dd if=/dev/nullb0 of=/dev/null bs=4096 count=1
		beside buffered_write dd if=/dev/zero of=/dev/nullb0 bs=4096 count=1 conv=notrunc
		beside lseek dd if=/dev/nullb0 of=/dev/null bs=4096 count=0 skip=100
		beside lseek_SIGKILL timeout -s KILL 1 \
			dd if=/dev/nullb0 of=/dev/null bs=4096 count=0 skip=100
		poweroff -f
	EOI
	chmod +x "$1"
}

make_initramfs() {
	local root=$work/initramfs module library
	mkdir -p "$root"/{bin,sbin,proc,sys,dev,lib64,lib/x86_64-linux-gnu}
	cp "$tree/bin/busybox" "$root/bin/"
	cp "$tree/sbin/blkdiscard" "$root/sbin/"
	cp "$tree/lib64/ld-linux-x86-64.so.2" "$root/lib64/"
	for library in libc.so.6 libblkid.so.1; do
		cp "$(find "$tree/lib" "$tree/usr/lib" -name $library | head -n1)" "$root/lib/x86_64-linux-gnu/"
	done
	for module in fs/configfs/configfs drivers/block/null_blk/null_blk; do
		module=$tree/lib/modules/$release/kernel/$module.ko
		[ ! -e "$module.xz" ] || xz -d "$module.xz"
		cp "$module" "$root/"
	done
	write_init "$root/init"
	(cd "$root" && find . | "$tree/bin/busybox" cpio -o -H newc 2>/dev/null) >"$work/initramfs.cpio"
}

# The clock of the guest is that of its instructions, and does not wait while it is idle.
boot() {
	local libraries=$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu
	QEMU_MODULE_DIR=$tree/usr/lib/x86_64-linux-gnu/qemu \
		nice -n 5 timeout 300 "$tree/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" \
		"$tree/usr/bin/qemu-system-x86_64" -L "$tree/usr/share/qemu" -L "$tree/usr/share/seabios" \
		-accel tcg -icount shift=3,sleep=off -m 512 -smp 1 -nodefaults -no-user-config -no-reboot \
		-display none -serial stdio -kernel "$tree/boot/vmlinuz-$release" \
		-initrd "$work/initramfs.cpio" -append "console=ttyS0 quiet panic=-1" \
		</dev/null | tr -d '\r' >"$work/console" || die "the guest did not end: $(tail "$work/console")"
}

# Prints the tables, and what is not as said above.
judge() {
	awk -v rows=10 '
		function expect(good, what) {
			if (!good) { print "DIFFERENT: " what; bad = 1 }
		}
		$1 == "row" {
			seen++
			seconds = $5 - $4
			took[$2, $3] = seconds
			if ($2 == "parallel") most[$3] = $6
		}
		$2 == "parallel" {
			if (!headed++) printf "%-17s %8s  %s\n", "eight at once", "seconds", "most in flight"
			printf "%-17s %8.2f  %d\n", $3, seconds, $6
		}
		$2 == "beside" {
			if (!headed2++) printf "\n%-17s %8s\n", "beside 4 discards", "seconds"
			printf "%-17s %8.2f\n", $3, seconds
			expect($6 == ($3 == "lseek_SIGKILL" ? 137 : 0), $3 ": exit status " $6)
		}
		/^failed/ { expect(0, $0) }
		END {
			expect(seen == rows, seen + 0 " rows of " rows)
			for (i = split("direct_read direct_write", free); i > 0; i--) {
				expect(took["parallel", free[i]] < 2.5, free[i] ": not in parallel")
				expect(most[free[i]] > 4, free[i] ": few in flight")
				expect(took["beside", free[i]] < 2, free[i] ": waits for discards")
			}
			for (i = split("discard zeroout", serial); i > 0; i--) {
				expect(took["parallel", serial[i]] > 7, serial[i] ": not one after the other")
				expect(most[serial[i]] == 1, serial[i] ": more than one in flight")
			}
			for (i = split("buffered_read buffered_write lseek lseek_SIGKILL", held); i > 0; i--)
				expect(took["beside", held[i]] > 3, held[i] ": does not wait for discards")
			exit bad
		}' "$work/console"
}

install_packages
make_initramfs
boot
grep -q '^row' "$work/console" || die "the guest measured nothing: $(tail "$work/console")"
echo "Linux $release"
judge
