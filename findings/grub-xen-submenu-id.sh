#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# GRUB with Xen: two submenus have one identifier, and an entry with Xen, named by identifiers, starts Linux
# without Xen.
# Usage: grub-xen-submenu-id.sh
#
# Version: grub2 2.12-9+deb13u4 of Debian 13 (trixie), its i386-pc on QEMU 10.0.13+ds-0+deb13u1. The kernels and
# Xen are empty files, and grub.cfg is grub-mkconfig's, but that each entry prints its title and does no more.
#
# Behaviour: 10_linux and 20_linux_xen both give the submenu of their "Advanced options" the identifier
# gnulinux-advanced-UUID, where UUID is the root file system's.
# 1. Of two entries with one identifier GRUB takes the first: the submenu without Xen. The rest of the name is
#    not found in there, and GRUB starts that submenu's first entry, the newest kernel without Xen. The console
#    shows no error. grub-reboot, grub-set-default and GRUB_DEFAULT all set the variable that is looked up so.
# 2. With GRUB_SAVEDEFAULT=true GRUB itself saves identifiers, even of an entry that was named by titles or
#    chosen in the menu by hand (tried, but not here): that start has Xen. The next one, for which nobody has
#    done anything, has not.
# 3. grub-mkconfig, with a GRUB_DEFAULT that 20_linux_xen takes for a title of old ("Xen VERSION>TITLE"), advises
#    another one "for 2.00 or later": that is the entry of the same kernel without Xen.
# With a title for the first submenu all is as one expects, and the rest may be identifiers.
#
# A good engineer would have guessed: identifiers are unique. GRUB's manual recommends them, not titles, which
# may be translated (Simple configuration, GRUB_DEFAULT), and grub.cfg has one for each of the name's three
# parts. A part that is not found is an error that GRUB shows, or the whole name counts for nothing. And what
# GRUB saves is what it has started. We found no report of it.
#
# A host that was to come back with another kernel under Xen comes back without Xen, and its guests do not start.
# Whoever chooses an entry from afar has to look at /sys/hypervisor/type afterwards: uname does not tell.
#
# Output seen:
#
#   Advanced options for Debian GNU/Linux: gnulinux-advanced-UUID
#   Advanced options for Debian GNU/Linux (with Xen hypervisor): gnulinux-advanced-UUID
#       Xen hypervisor, version 4.20-amd64: xen-hypervisor-4.20-amd64-UUID
#
#   entry named by                     GRUB starts
#   titles                             Debian GNU/Linux, with Xen 4.20-amd64 and Linux 6.12.1-amd64
#   one title, two identifiers         Debian GNU/Linux, with Xen 4.20-amd64 and Linux 6.12.1-amd64
#   identifiers                        Debian GNU/Linux, with Linux 6.12.2-amd64
#   grub-mkconfig's advice             Debian GNU/Linux, with Linux 6.12.1-amd64
#   titles, GRUB_SAVEDEFAULT=true      Debian GNU/Linux, with Xen 4.20-amd64 and Linux 6.12.1-amd64
#   the same, next start               Debian GNU/Linux, with Linux 6.12.2-amd64
#
#   advice: gnulinux-advanced-UUID>gnulinux-6.12.1-amd64-advanced-UUID
#   saved_entry=gnulinux-advanced-UUID>xen-hypervisor-4.20-amd64-UUID>xen-gnulinux-6.12.1-amd64-advanced-UUID
#
# Exits 0 if it is still so, 1 if something is different, 2 if it could not be tried. Needs root, mmdebstrap,
# debian-archive-keyring and a loop device, on a Debian on amd64 whose apt knows a mirror (or MIRROR=URL). All is
# in a temporary directory, and the mounts are in a namespace of their own.
set -eEuo pipefail
export LC_ALL=C

die() { echo "${0##*/}: $*" >&2; exit 2; }
trap 'die "line $LINENO: failed"' ERR

grub=2.12-9+deb13u4
PACKAGES=grub-common=$grub,grub2-common=$grub,grub-pc-bin=$grub
PACKAGES+=,qemu-system-x86=1:10.0.13+ds-0+deb13u1,e2fsprogs=1.47.2-3+b12,fdisk=2.41.5-0+deb13u1
# shellcheck disable=SC2016 # apt expands it
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/\?$')} ||
	die "this host's apt knows no Debian mirror: name one with MIRROR=URL"
[ "$(id -u)" = 0 ] || die "needs root"
command -v mmdebstrap >/dev/null || die "needs mmdebstrap"

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
tree=$work/tree
disk=$tree/disk
uuid=00000000-0000-4000-8000-000000000001
xen=4.20-amd64
old=6.12.1-amd64
new=6.12.2-amd64
os='Debian GNU/Linux'

# on_disk COMMAND...: in a root whose / is the file system of the disk. 10_linux makes no entries if that is
# /dev/loop0, so it has another name, in a /dev of its own. The loop device goes with the mount.
on_disk() {
	# shellcheck disable=SC2016 # expanded by that shell
	unshare -m --propagation private sh -ec '
		root=$1/mnt
		loop=$(losetup --find --show --offset 1048576 "$1/disk")
		number=$(stat -c "0x%t 0x%T" "$loop")
		mount -t tmpfs dev /dev
		mknod -m 666 /dev/null c 1 3
		mknod /dev/demo b $number
		trap "losetup --detach /dev/demo" EXIT
		mount /dev/demo "$root"
		losetup --detach /dev/demo
		trap "umount -R $root" EXIT
		mount --bind /dev "$root/dev"
		mount --bind "$1/usr" "$root/usr"
		mount -t proc proc "$root/proc"
		shift
		chroot "$root" "$@"' sh "$tree" "$@"
}

# A PC's disk with GRUB, and with a root that has two kernels and a Xen in /boot. They are never started, so
# they are empty.
make_disk() {
	local root=$work/root name release
	mkdir -p "$root"/{boot/grub,dev,etc/default,proc,sys,tmp,usr,var} "$tree/mnt"
	for name in bin lib lib64 sbin; do
		ln -s usr/$name "$root/$name"
	done
	cp -a "$tree/etc/grub.d" "$tree/etc/passwd" "$tree/etc/os-release" "$root/etc/"
	touch "$root/boot/xen-$xen.gz"
	for release in $old $new; do
		touch "$root/boot/vmlinuz-$release" "$root/boot/initrd.img-$release"
		echo CONFIG_XEN_DOM0=y >"$root/boot/config-$release"
	done
	cp -r "$tree/usr/lib/grub/i386-pc" "$root/boot/grub/"
	mv "$root" "$tree/root-of-disk"
	truncate -s 64M "$disk"
	{
		echo 2048,,L | chroot "$tree" sfdisk -q -X dos /disk
		chroot "$tree" mkfs.ext4 -q -U $uuid -d /root-of-disk -E offset=1048576 /disk 63M
		chroot "$tree" grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /core.img \
			biosdisk part_msdos ext2 normal
		dd if="$tree/usr/lib/grub/i386-pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc
		dd if="$tree/core.img" of="$disk" bs=512 seek=1 conv=notrunc
	} >>"$work/log" 2>&1
}

# configure DEFAULT: makes grub.cfg, and prints what grub-mkconfig says.
configure() {
	on_disk sh -ec 'printf "%s\n" "$@" >/etc/default/grub
		grub-mkconfig -o /boot/grub/grub.cfg 2>&1' sh GRUB_DISTRIBUTOR=Debian "GRUB_DEFAULT='$1'" \
		GRUB_SAVEDEFAULT=true GRUB_TIMEOUT=0 GRUB_TERMINAL=serial
}

# In grub.cfg, an entry now prints its title instead of starting what it has; the rest stays as it is.
replace_bodies() {
	awk '
		/^\t*menuentry / {
			print
			body = 1
			end = $0
			sub(/menuentry.*/, "}", end)
			split($0, part, "\047")
			next
		}
		body && $0 == end {
			print "echo \047taken: " part[2] "\047"
			print "reboot"
			body = 0
		}
		!body || $1 == "savedefault"' "$work/grub.cfg" | on_disk sh -c 'cat >/boot/grub/grub.cfg'
}

boot() {
	nice -n 5 timeout 120 chroot "$tree" qemu-system-x86_64 -accel tcg -m 128 -nodefaults -no-user-config \
		-no-reboot -display none -serial stdio -drive file=/disk,format=raw </dev/null >"$work/console" ||
		die "GRUB did not end: $(tail -n 3 "$work/console")"
	grep -a -o 'taken: .*' "$work/console" | tr -d '\r' | sed 's/^taken: //' | head -n1
}

# takes NAMED WANTED: starts it, prints a row, and notes if it is not WANTED.
takes() {
	local title
	title=$(boot)
	printf '%-34s %s\n' "$1" "$title"
	[ "$title" = "$2" ] || different=1
}

mmdebstrap -q --mode=root --variant=apt --include="$PACKAGES" trixie "$tree" "$MIRROR" >"$work/log" 2>&1 ||
	die "the packages could not be installed: $(tail -n 1 "$work/log")"
make_disk

different=
configure "Xen $xen>$os, with Xen $xen and Linux $old" >"$work/advice"
advice=$(sed -n 's/^Warning: .* or `\(.*\)'\'' (for 2.00 or later)$/\1/p' "$work/advice")
configure saved >>"$work/log"
on_disk cat /boot/grub/grub.cfg >"$work/grub.cfg"
replace_bodies

sed -n "s/^\(\t*\)submenu '\(.*\)' .menuentry_id_option '\(.*\)' {/\1\2: \3/p" "$work/grub.cfg" |
	sed "s/$uuid/UUID/; s/\t/    /g" | tee "$work/submenus"
[ "$(grep -c '^Advanced.*: gnulinux-advanced-UUID$' "$work/submenus" || true)" = 2 ] || different=1
echo

title="$os, with Xen $xen and Linux $old"
menu="Advanced options for $os (with Xen hypervisor)"
id=gnulinux-advanced-$uuid
rest=xen-hypervisor-$xen-$uuid'>'xen-gnulinux-$old-advanced-$uuid

printf '%-34s %s\n' 'entry named by' 'GRUB starts'
on_disk grub-reboot "$menu>Xen hypervisor, version $xen>$title"
takes titles "$title"
on_disk grub-reboot "$menu>$rest"
takes 'one title, two identifiers' "$title"
on_disk grub-reboot "$id>$rest"
takes identifiers "$os, with Linux $new"
on_disk grub-reboot "$advice"
takes "grub-mkconfig's advice" "$os, with Linux $old"
on_disk grub-set-default "$menu>Xen hypervisor, version $xen>$title"
takes 'titles, GRUB_SAVEDEFAULT=true' "$title"
saved=$(on_disk grub-editenv list)
takes 'the same, next start' "$os, with Linux $new"
echo
echo "advice: ${advice//$uuid/UUID}"
echo "${saved//$uuid/UUID}"
[ "$saved" = "saved_entry=$id>$rest" ] || different=1

[ -n "$different" ] || exit 0
echo "${0##*/}: something is different" >&2
exit 1
