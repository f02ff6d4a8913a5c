#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# cgroup v2: io.max charges a discard 512 bytes of wbps, however long it is.
# Usage: io-max-discard.sh
#
# Version: Linux 6.1.176-1 (linux-image-6.1.0-50-cloud-amd64 of Debian 12), null_blk with
# memory_backed=1 and discard=1, blkdiscard of util-linux 2.38.1. Linux 6.12.117-1~deb12u1 does the
# same: KERNEL=linux-image-6.12.117+deb12-cloud-amd64=6.12.117-1~deb12u1 findings/io-max-discard.sh
#
# Behaviour:
# 1. A discard is one operation of wiops, and 512 bytes of wbps whatever its length.
#    wbps=51200 lets 100 discards of 1 MiB a second through: 2,048 times the bytes it names.
# 2. io.stat counts the same discard in dbytes with its whole length, and in wbytes not at all. No
#    counter says what wbps has charged.
# 3. io.stat prints no number at all of a cgroup that has only discarded: dbytes and dios appear
#    with its first read or write.
# 4. A discard that the block layer splits (it is longer than discard_max_bytes) is charged 512
#    bytes once, but one operation of wiops for every part, as a write is: a small
#    discard_max_bytes makes discards dearer for the one limit only. dios counts parts.
#
# A good engineer would have guessed: wbps limits the bytes that change on the device, so a discard
# costs its length, or it is no write and costs nothing; wbytes or dbytes says what was charged; and
# dbytes can be read whenever it is not 0. cgroup-v2.rst says "Max write bytes per second" and
# nothing of discards. The 512 bytes are in a comment of block/blk-throttle.c and in the message of
# the commit "blk-throttle: cap discard request size" (2017).
#
# Who limits a guest or a container in bytes has to set wiops too: wbps hardly holds its discards.
#
# Output seen (the guest's clock, seconds):
#
#   Linux 6.1.0-50-cloud-amd64
#   io.max     operation     bytes count seconds   bytes/s   wbytes wios    dbytes dios
#   wbps=51200 write          4096    25    1.92     53333   102400   25         0    0
#   wbps=51200 write       1048576     1   20.50     51150  1048576    9         0    0
#   none       discard     1048576   200    0.29 723155862        0    0 209715200  200 *
#   wbps=51200 discard        4096   200    1.91    428901        0    0    819200  200 *
#   wbps=51200 discard     1048576   200    1.92 109226667        0    0 209715200  200 *
#   wiops=100  discard        4096   200    1.90    431158        0    0    819200  200 *
#   wiops=100  discard     1048576   200    1.92 109226667        0    0 209715200  200 *
#   wbps=51200 split-in-16 1048576   200    1.93 108660725        0    0 209715200 3200 *
#   wiops=100  split-in-16 1048576    25    3.91   6704450        0    0  26214400  400 *
#   * io.stat had no numbers before the cgroup read something.
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
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		insmod /configfs.ko
		mount -t configfs configfs /sys/kernel/config
		insmod /null_blk.ko nr_devices=0
		device=/sys/kernel/config/nullb/nullb0
		mkdir $device
		echo 1 >$device/memory_backed
		echo 1 >$device/discard
		echo 1024 >$device/size
		echo 1 >$device/power
		echo +io >/sys/fs/cgroup/cgroup.subtree_control
		number=$(cat /sys/block/nullb0/dev)

		# in_cgroup GROUP COMMAND...
		in_cgroup() {
			sh -c 'echo $$ >$0/cgroup.procs; exec "$@"' "$@" >/dev/null 2>&1 || echo "failed: $*"
		}

		# row LIMIT OPERATION BYTES COUNT COMMAND...: the first read of the cgroup
		# comes last, so that its io.stat is seen without one and with one.
		row() {
			what="$1 $2 $3 $4"
			rows=$((rows + 1))
			group=/sys/fs/cgroup/row$rows
			mkdir $group
			[ "$1" = none ] || echo "$number $1" >$group/io.max
			shift 4
			begin=$(cut -d' ' -f1 /proc/uptime)
			in_cgroup $group "$@"
			end=$(cut -d' ' -f1 /proc/uptime)
			before=$(grep -c dbytes= $group/io.stat)
			in_cgroup $group dd if=/dev/nullb0 of=/dev/null bs=4096 count=1 iflag=direct
			echo "row $what $begin $end shown=$before $(cut -d' ' -f2- $group/io.stat)"
		}
		# By its path: busybox has a blkdiscard, too, but without --step.
		discards() {
			row $1 $4 $2 $3 /sbin/blkdiscard --force --step $2 --length $(($2 * $3)) /dev/nullb0
		}
		writes() {
			row $1 write $2 $3 dd if=/dev/zero of=/dev/nullb0 bs=$2 count=$3 oflag=direct
		}

		writes wbps=51200 4096 25
		writes wbps=51200 1048576 1
		discards none 1048576 200 discard
		discards wbps=51200 4096 200 discard
		discards wbps=51200 1048576 200 discard
		discards wiops=100 4096 200 discard
		discards wiops=100 1048576 200 discard
		echo 65536 >/sys/block/nullb0/queue/discard_max_bytes
		discards wbps=51200 1048576 200 split-in-16
		discards wiops=100 1048576 25 split-in-16
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

# Prints the table, and what is not as said above.
judge() {
	awk -v rows=9 '
		function expect(good, what) {
			if (!good) { print "DIFFERENT: " what; bad = 1 }
		}
		function near(value, wanted) { return value > wanted / 1.5 && value < wanted * 1.5 }
		BEGIN {
			format = "%-10s %-11s %7s %5s %7s %9s %8s %4s %9s %4s%s\n"
			printf format, "io.max", "operation", "bytes", "count", "seconds", "bytes/s",
				"wbytes", "wios", "dbytes", "dios", ""
		}
		$1 == "row" {
			split("", stat)
			for (i = 8; i <= NF; i++) { split($i, pair, "="); stat[pair[1]] = pair[2] }
			total = $4 * $5
			seconds = $7 - $6
			took[$2, $3, $4] = seconds
			printf format, $2, $3, $4, $5, sprintf("%.2f", seconds),
				(seconds > 0 ? sprintf("%.0f", total / seconds) : "-"), stat["wbytes"],
				stat["wios"], stat["dbytes"], stat["dios"], (stat["shown"] ? "" : " *")
			where = $2 " " $3 " " $4
			if ($3 == "write") {
				expect(stat["wbytes"] == total && stat["dbytes"] == 0, where ": bytes in io.stat")
				expect(stat["shown"] == 1, where ": io.stat before a read")
			} else {
				parts = $3 == "discard" ? 1 : 16
				expect(stat["dbytes"] == total, where ": dbytes is not the whole length")
				expect(stat["wbytes"] == 0 && stat["wios"] == 0, where ": counted as a write")
				expect(stat["dios"] == $5 * parts, where ": dios")
				expect(stat["shown"] == 0, where ": io.stat before a read")
			}
			seen++
		}
		/^failed/ { expect(0, $0) }
		END {
			print "* io.stat had no numbers before the cgroup read something."
			expect(seen == rows, seen + 0 " rows of " rows)
			expect(near(took["wbps=51200", "write", 4096], 2), "writes of 4 KiB")
			expect(near(took["wbps=51200", "write", 1048576], 20.5), "a write of 1 MiB")
			expect(took["none", "discard", 1048576] < 1, "discards without a limit")
			expect(near(took["wbps=51200", "discard", 4096], 2), "wbps, discards of 4 KiB")
			expect(near(took["wbps=51200", "discard", 1048576], 2), "wbps, discards of 1 MiB")
			expect(near(took["wiops=100", "discard", 4096], 2), "wiops, discards of 4 KiB")
			expect(near(took["wiops=100", "discard", 1048576], 2), "wiops, discards of 1 MiB")
			expect(near(took["wbps=51200", "split-in-16", 1048576], 2), "wbps, split discards")
			expect(near(took["wiops=100", "split-in-16", 1048576], 4), "wiops, split discards")
			exit bad
		}' "$work/console"
}

install_packages
make_initramfs
boot
grep -q '^row' "$work/console" || die "the guest measured nothing: $(tail "$work/console")"
echo "Linux $release"
judge
