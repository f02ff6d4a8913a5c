#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A Debian package with a kernel module in /usr/lib/modules gets no call of depmod from debhelper.
# Usage: dh-installmodules-usr.sh
#
# Version: debhelper 13.24.2, dpkg-dev 1.22.22 and lintian 2.122.0+deb13u1 of Debian 13 (trixie).
#
# Behaviour: dh_installmodules looks for modules below lib/modules of the package only. Where a package has
# its module below usr/lib/modules, no maintainer script calls depmod: modprobe and udev do not know the
# module, until somebody else's package runs depmod, as the next kernel update or a DKMS module does. Nothing
# is said about it. lintian of the same Debian refuses the other place with an error (aliased-location): since
# /lib is a link to /usr/lib, no package may have files below /lib.
#
# A good engineer would have guessed: both names are one directory on every Debian 13, Debian's own kernel has
# its modules in /usr/lib/modules, and dh_installmodules(1) says that modules are searched for "in the package
# build directory", so the place that lintian asks for is the one that works.
#
# Whoever follows lintian has a package that seems to work wherever something else runs depmod later, and a
# dom0 whose backend module is not found at the next boot where nothing does. A postinst and a postrm have to
# call depmod themselves.
#
# Output seen:
#
#   module below     depmod in        lintian
#   lib/modules      postinst postrm  aliased-location
#   usr/lib/modules  nowhere          no error
#
# Exits 0 if it is still so, 1 if something is different, 2 if it could not be tried. Needs root, mmdebstrap
# and debian-archive-keyring on a Debian whose apt knows a mirror (or MIRROR=URL). All is in a temporary
# directory; no module is loaded, and the packages are not installed.
set -euo pipefail

die() { echo "${0##*/}: $*" >&2; exit 2; }

PACKAGES=debhelper=13.24.2,lintian=2.122.0+deb13u1,dpkg-dev=1.22.22
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/\?$')} ||
	die "this host's apt knows no Debian mirror: name one with MIRROR=URL"
[ "$(id -u)" = 0 ] || die "needs root"
command -v mmdebstrap >/dev/null || die "needs mmdebstrap"

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mmdebstrap -q --mode=root --variant=apt --include="$PACKAGES" trixie "$root" "$MIRROR" >"$work/log" 2>&1 ||
	die "the packages could not be installed: $(tail -n 1 "$work/log")"

# package DIR: a source of a package with a module below DIR, built to $root/DIR-with-dashes/.
package() {
	local top=$root/${1//\//-} tree
	tree=$top/tree
	mkdir -p "$tree/debian/source"
	printf 'demo-module (1) unstable; urgency=low\n\n  * Demo.\n\n -- Demo <demo@demo.example>  Mon, 30 Nov 2026 12:00:00 +0000\n' \
		>"$tree/debian/changelog"
	cat >"$tree/debian/control" <<-CONTROL
		Source: demo-module
		Section: kernel
		Priority: optional
		Maintainer: Demo <demo@demo.example>
		Build-Depends: debhelper-compat (= 13)
		Standards-Version: 4.7.0

		Package: demo-module
		Architecture: all
		Depends: \${misc:Depends}
		Description: module for a demonstration
		 It has one file, where a kernel would look for a module.
	CONTROL
	printf '#!/usr/bin/make -f\n%%:\n\tdh $@\n' >"$tree/debian/rules"
	chmod +x "$tree/debian/rules"
	echo '3.0 (native)' >"$tree/debian/source/format"
	echo 'Demo. GPL-2.' >"$tree/debian/copyright"
	# dh_installmodules goes by the name.
	echo demo >"$tree/demo.ko"
	echo "demo.ko $1/6.99.0-1-amd64/updates/" >"$tree/debian/demo-module.install"
	chroot "$root" sh -c "cd '/${1//\//-}/tree' && dpkg-buildpackage -d -us -uc -b" >"$work/build" 2>&1 ||
		die "the package could not be built: $(tail -n 1 "$work/build")"
}

# calls DIR: the maintainer scripts that call depmod.
calls() {
	local top=$root/${1//\//-} found
	dpkg-deb --control "$top"/demo-module_1_all.deb "$top/control"
	found=$(cd "$top/control" && grep -l depmod p* 2>/dev/null | tr '\n' ' ') || true
	echo "${found:-nowhere}"
}

# opinion DIR: lintian's error about the place.
opinion() {
	chroot "$root" lintian --allow-root --fail-on none "/${1//\//-}/demo-module_1_all.deb" |
		sed -n 's/^E: [^ ]*: \(aliased-location\).*/\1/p' | sort -u | grep . || echo 'no error'
}

printf '%-16s %-16s %s\n' 'module below' 'depmod in' lintian
for dir in lib/modules usr/lib/modules; do
	package "$dir"
	printf '%-16s %-16s %s\n' "$dir" "$(calls "$dir")" "$(opinion "$dir")"
done | tee "$work/seen"

[[ $(sed -n 1p "$work/seen") == *postinst*aliased-location ]] &&
	[[ $(sed -n 2p "$work/seen") == *nowhere*'no error' ]] && exit 0
echo "${0##*/}: something is different" >&2
exit 1
