# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the lab boots: Xen, the stock kernel, dom0's disk, the guest's initrd.

# Kernel modules that a host or its tests can want; the rest of the 130 MB is
# for hardware that QEMU does not have here.
DOM0_MODULES=(drivers/block drivers/md drivers/xen drivers/virtio drivers/nvdimm
	drivers/target drivers/scsi/scsi_debug drivers/scsi/sd_mod drivers/scsi/sg
	fs/ext4 fs/xfs fs/fuse fs/configfs fs/overlayfs lib crypto)
GUEST_MODULES=(drivers/block/xen-blkfront drivers/xen fs/ext4 lib/crc crypto/crc32)

# The libraries that a program gets for real; fake_libraries makes the others.
declare -A REAL_LIBRARIES=(
	[fio]='/(ld-linux.*|lib(c|m|z|aio|numa)\.so.*)$'
	[stress-ng]='/lib(bsd|md|gcc_s)\.so.*$')
GUEST_PROGRAMS=(bash dd sync stat cmp od date sleep timeout head tail cat seq
	setsid stty blockdev taskset mount umount mkfs.ext4 e2fsck fstrim)

dom0_userland() {
	local include
	include=$(IFS=,; echo "${DOM0_PACKAGES[*]}")
	bootstrap "$PARTIAL/dom0" --include="$include"
}

# copy_modules DEST NAME...: modules whose path begins with one of the names,
# and those they need, uncompressed (decompressing costs seconds under TCG).
copy_modules() {
	local dest=$1 modules=$PARTIAL/root/usr/lib/modules/$RELEASE list name
	shift
	list=$(for name; do
		sed -n "s|^\(kernel/$name[^:]*\): *|\1 |p" "$modules/modules.dep"
	done | tr ' ' '\n' | sort -u)
	mkdir -p "$dest/lib/modules/$RELEASE"
	(cd "$modules" && cp --parents $list modules.builtin* modules.order "$dest/lib/modules/$RELEASE/")
	find "$dest/lib/modules/$RELEASE" -name '*.ko.xz' -print0 | xargs -0 -P2 -n32 xz -d -f
	chroot "$PARTIAL/root" depmod -b "$LAB/${dest#"$PARTIAL"/}" "$RELEASE"
}

# copy_programs DEST NAME...: programs of dom0's userland with their libraries.
copy_programs() {
	local dest=$1 name path
	shift
	for name; do
		path=$(chroot "$PARTIAL/dom0" /bin/bash -c "type -P $name")
		echo "$path"
		chroot "$PARTIAL/dom0" ldd "$path" | grep -o '/[^ ]*' | grep -E "${REAL_LIBRARIES[$name]:-.}"
	done | sort -u | while read -r path; do
		mkdir -p "$dest$(dirname "$path")"
		cp -L --remove-destination "$PARTIAL/dom0$path" "$dest$path"
	done
}

# symbols_of PROGRAM VERSION: what PROGRAM needs under a symbol version ("Base":
# without one).
symbols_of() {
	in_root objdump -T "$1" | awk -v version="$2" '
		!/\*UND\*/ || $2 == "w" { next }
		{ gsub(/[()]/, "", $(NF - 1)) }
		$(NF - 1) == version { print $NF }'
}

# fake_library PROGRAM SONAME FILE: a library that has the symbols PROGRAM needs
# of SONAME, each of which aborts.
fake_library() {
	local program=$1 soname=$2 file=$3 version symbol versions
	versions=$(in_root objdump -p "$program" | awk -v soname="$soname:" '
		/required from/ { on = $3 == soname } on && /0x/ { print $4 }')
	: >"$file.map"
	echo 'void abort(void);' >"$file.c"
	for version in ${versions:-Base}; do
		[ "$version" = Base ] || echo "$version { global:" >>"$file.map"
		for symbol in $(symbols_of "$program" "$version"); do
			# An unversioned one may be some other library's.
			[ "$version" = Base ] && grep -qx "$symbol" "$PARTIAL/real-symbols" && continue
			# The linker looks at a thread's variables before anything uses them.
			if grep -qx "$symbol" "$PARTIAL/thread-symbols"; then
				echo "__thread long $symbol;"
			else
				echo "void $symbol(void) { abort(); }"
			fi >>"$file.c"
			[ "$version" = Base ] || echo "$symbol;" >>"$file.map"
		done
		[ "$version" = Base ] || echo "};" >>"$file.map"
	done
	in_root gcc-14 -w -shared -fPIC -fno-builtin -O1 -s "-Wl,-soname,$soname" \
		${versions:+-Wl,--version-script="$LAB/${file#"$PARTIAL"/}.map"} \
		-o "$LAB/${file#"$PARTIAL"/}" "$LAB/${file#"$PARTIAL"/}.c"
	rm "$file.c" "$file.map"
}

# fake_libraries TREE PROGRAM LIBRARIES: fake ones for all that PROGRAM needs and
# that neither TREE nor the directory LIBRARIES has.
fake_libraries() {
	local tree=$1 program=$1/usr/bin/$2 libraries=$3 library soname
	local own=$tree/usr/lib/x86_64-linux-gnu
	program=$LAB/${program#"$PARTIAL"/}
	for library in "$own"/*.so* "$libraries"/*.so*; do
		in_root objdump -T "$LAB/${library#"$PARTIAL"/}" | awk '!/UND/ { print $NF }'
	done >"$PARTIAL/real-symbols"
	in_root readelf -W --dyn-syms "$program" |
		awk '$4 == "TLS" && $7 == "UND" { print $8 }' >"$PARTIAL/thread-symbols"
	for soname in $(in_root objdump -p "$program" | awk '$1 == "NEEDED" { print $2 }'); do
		[ -e "$own/$soname" ] || [ -e "$libraries/$soname" ] ||
			fake_library "$program" "$soname" "$own/$soname"
	done
}

# Debian's fio links the clients of four network storages, 50 MB of libraries
# that every guest would have to unpack and every fio to link, in an emulated
# CPU. No test uses them: the guest gets empty ones in their place.
copy_fio() {
	local guest=$1
	copy_programs "$guest" fio
	fake_libraries "$guest" fio "$guest/usr/lib/x86_64-linux-gnu"
	chroot "$guest" /usr/bin/fio --version
}

# skeleton TREE: the directories of a merged /usr.
skeleton() {
	local dir
	rm -rf --one-file-system "$1"
	mkdir -p "$1"/usr/{bin,sbin,lib,lib64}
	for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$1/$dir"; done
}

# stress-ng is as large as all the rest of a guest, so it is an archive of its
# own, which a test that uses it puts behind the initrd.
stress_archive() {
	local tree=$PARTIAL/stress-ng guest=$PARTIAL/guest
	in_root sh -c 'cd $LAB && apt-get -q -o APT::Sandbox::User=root download stress-ng &&
		dpkg-deb --fsys-tarfile stress-ng_*.deb | tar -xO ./usr/bin/stress-ng >dom0/usr/bin/stress-ng &&
		chmod 755 dom0/usr/bin/stress-ng && rm stress-ng_*.deb'
	skeleton "$tree"
	copy_programs "$tree" stress-ng
	rm "$PARTIAL/dom0/usr/bin/stress-ng"
	fake_libraries "$tree" stress-ng "$guest/usr/lib/x86_64-linux-gnu"
	in_root sh -c 'cd $LAB/stress-ng && find usr | cpio -o -H newc --quiet >$LAB/stress-ng.cpio'
	# As a guest has it: both trees in one.
	cp -an "$guest/." "$tree/"
	chroot "$tree" /usr/bin/stress-ng --version
	rm -rf --one-file-system "$tree"
}

guest_initrd() {
	local guest=$PARTIAL/guest
	skeleton "$guest"
	mkdir -p "$guest"/{proc,sys,dev,run,tmp,mnt,root,etc}
	# busybox first: Debian's own programs then take the place of its links.
	cp "$PARTIAL/root/usr/bin/busybox" "$guest/usr/bin/"
	chroot "$guest" /usr/bin/busybox --install -s /usr/bin
	copy_programs "$guest" "${GUEST_PROGRAMS[@]}"
	copy_fio "$guest"
	copy_modules "$guest" "${GUEST_MODULES[@]}"
	cp "$PARTIAL/dom0/etc/mke2fs.conf" "$guest/etc/"
	cp "$SETUP/guest/init" "$guest/init"
	in_root sh -c 'cd $LAB/guest && find . | cpio -o -H newc --quiet >$LAB/guest.cpio'
}

dom0_initrd() {
	local tree=$PARTIAL/dom0-initrd module
	rm -rf --one-file-system "$tree"
	mkdir -p "$tree"/{bin,dev,proc,root,modules,image,writable}
	cp "$PARTIAL/root/usr/bin/busybox" "$tree/bin/"
	cp "$SETUP/dom0/initrd-init" "$tree/init"
	# modprobe prints what it would load, in order.
	for module in virtio_pci virtio_blk squashfs overlay; do
		in_root modprobe -n -D -S "$RELEASE" "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$PARTIAL/order"
	while read -r module; do
		xz -dc "$PARTIAL/root$module" >"$tree/modules/$(basename "$module" .xz)"
		basename "$module" .xz >>"$tree/modules/order"
	done <"$PARTIAL/order"
	in_root sh -c 'cd $LAB/dom0-initrd && find . | cpio -o -H newc --quiet >$LAB/images/dom0-initrd'
}

dom0_disk() {
	local dom0=$PARTIAL/dom0
	copy_modules "$dom0" "${DOM0_MODULES[@]}"
	mkdir -p "$dom0/lab" "$dom0/lab-guest" "$dom0/var/log/xen/console" "$dom0/proc/xen"
	install -m 755 "$SETUP/dom0/lab-init" "$dom0/sbin/lab-init"
	install -m 755 "$SETUP/dom0/lab-console" "$dom0/usr/local/bin/lab-console"
	# Tests choose the backend; a "vbd" must not load one by its modalias.
	echo "blacklist xen-blkback" >"$dom0/etc/modprobe.d/lab.conf"
	echo 'autoballoon="off"' >>"$dom0/etc/xen/xl.conf"
	echo xenlab >"$dom0/etc/hostname"
	printf '127.0.0.1 localhost xenlab\n' >"$dom0/etc/hosts"
	mv "$PARTIAL/guest.cpio" "$dom0/lab-guest/initrd"
	mv "$PARTIAL/stress-ng.cpio" "$dom0/lab-guest/stress-ng.cpio"
	cp "$PARTIAL"/images/vmlinu[xz] "$dom0/lab-guest/"
	rm -f "$dom0"/boot/xen-*.efi
	rm -f "$PARTIAL/images/dom0.img"
	# Uncompressed: reading it costs less than unpacking in an emulated CPU.
	in_root mksquashfs "$LAB/dom0" "$LAB/images/dom0.img" -noI -noD -noF -noX -quiet -no-progress
}

# number FILE OFFSET BYTES: a little-endian number in a file.
number() {
	od -A n -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# payload BZIMAGE: the ELF kernel that the stock, signed image wraps. Xen and xl
# boot that as well, and decompressing it in an emulated CPU takes seconds. See
# Documentation/arch/x86/boot.rst in the kernel for the header.
payload() {
	local offset length
	offset=$((($(number "$1" 0x1f1 1) + 1) * 512 + $(number "$1" 0x248 4)))
	length=$(number "$1" 0x24c 4)
	# The last four bytes are the uncompressed size.
	tail -c "+$((offset + 1))" "$1" | head -c "$((length - 4))" | in_root zstd -q -d -c
}

boot_files() {
	local kernel=$PARTIAL/root/boot/vmlinuz-$RELEASE
	gunzip -c "$PARTIAL"/dom0/boot/xen-*-amd64.gz >"$PARTIAL/images/xen"
	cp "$kernel" "$PARTIAL/images/vmlinuz"
	# Not compressed with zstd: then the image itself has to do.
	payload "$kernel" >"$PARTIAL/images/vmlinux" || cp "$kernel" "$PARTIAL/images/vmlinux"
}

build_dom0() {
	step dom0-userland dom0_userland
}

build_images() {
	step boot-files boot_files
	step guest-initrd guest_initrd
	step stress-archive stress_archive
	step dom0-initrd dom0_initrd
	step dom0-disk dom0_disk
}
